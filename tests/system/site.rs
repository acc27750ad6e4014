//! A whole site: a broker in the cloud, the far end that listens there, the proxy that is the
//! uplink, and the gateway. Topics that start with `alarm/` are of the first class, those with
//! `low/` of the lowest, all others of the class `normal`.

use crate::broker::{Broker, BrokerOptions};
use crate::gateway::{Configuration, Gateway, Ledger};
use crate::proxy::Proxy;
use crate::subscriber::Subscriber;

/// Dropped in this order: first the gateway, then its world.
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) far: Subscriber,
    pub(crate) proxy: Proxy,
    pub(crate) broker: Broker,
}

impl Site {
    /// A site with the default configuration.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::with(|configuration| configuration)
    }

    /// A site whose configuration is changed.
    #[track_caller]
    pub(crate) fn with(change: impl FnOnce(Configuration) -> Configuration) -> Self {
        Self::on(Broker::start(), change)
    }

    /// A site on a broker that keeps (or loses) everything when it restarts.
    #[track_caller]
    pub(crate) fn on_broker(
        options: &BrokerOptions,
        change: impl FnOnce(Configuration) -> Configuration,
    ) -> Self {
        Self::on(Broker::with(options), change)
    }

    #[track_caller]
    fn on(broker: Broker, change: impl FnOnce(Configuration) -> Configuration) -> Self {
        let proxy = Proxy::start(broker.address());
        let far = Subscriber::start(broker.address());
        let gateway = Gateway::start(&change(Self::configuration(proxy.port())));
        Self {
            gateway,
            far,
            proxy,
            broker,
        }
    }

    /// The configuration of a site whose uplink is this port.
    pub(crate) fn configuration(uplink_port: u16) -> Configuration {
        Configuration::to(uplink_port)
            .rule("alarm/#", "critical")
            .rule("low/#", "low")
    }

    /// SIGTERM, exit 0, a ledger that balances; and the far end has everything by then.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> Ledger {
        let ledger = self.gateway.terminate();
        self.far.settle();
        ledger
    }

    /// The gateway's listener.
    pub(crate) fn port(&self) -> u16 {
        self.gateway.port()
    }
}
