//! The table `[admin]`.

use std::net::{Ipv4Addr, SocketAddr};

use super::listener::address;
use super::reader::{Reading, Section};
use super::tree::Table;

/// `[admin]`: where people and their tools ask how the gateway is. What changes anything goes another
/// way, over a socket in the state folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it answers; `None`: nowhere, it is switched off.
    pub bind: Option<SocketAddr>,
}

pub(super) fn read(reading: &mut Reading<'_>, table: Option<Table<'_>>) -> AdminSettings {
    let mut section = Section::open(reading, "[admin]", table);
    let enabled = section.flag("enabled", true);
    let bind = bind(&mut section);
    section.done();
    AdminSettings {
        bind: enabled.then_some(bind),
    }
}

fn bind(section: &mut Section<'_, '_, '_>) -> SocketAddr {
    let expose = section.flag("expose", false);
    let bind = address(
        section,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 9180)),
        "write \"127.0.0.1:9180\" or \"[::1]:9180\"; `enabled = false` switches the admin interface off",
    );
    if !bind.ip().is_loopback() && !expose {
        let what = format!("`bind` opens {bind} to the network, and anybody there could read it");
        let hint = "if that is meant, write `expose = true` beside it; else bind to 127.0.0.1";
        section.fault("bind", what, hint);
    }
    bind
}
