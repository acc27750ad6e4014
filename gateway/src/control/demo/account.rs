//! What came of the story: the devices' account, the gateway's ledger and what the cloud has, held
//! against each other. Values in, a verdict out, as text or as JSON.

use std::fmt;

use firmware_sim::account::{Account as FleetAccount, KindAccount};
use serde::Serialize;

use super::story::{ACTS, CHANNELS, DEVICES};
use super::written::{grouped, latency};
use crate::control::exit::Exit;
use crate::traffic::settle::Outcome;
use crate::traffic::status::{ClassStatus, Status};

/// The account.
#[derive(Clone, Debug, Serialize)]
pub struct Account {
    /// From the first act's beginning to the end.
    pub seconds: f64,
    /// Somebody ended it before the last act's end.
    pub interrupted: bool,
    /// Alarms that were acknowledged to their device and are neither in the cloud nor in the
    /// gateway. `None`: the gateway was down at the end, and nobody knows what is on its disk.
    pub alarms_lost: Option<u64>,
    /// Whether the ledger of every class balances. `None`: the gateway was down at the end.
    pub balanced: Option<bool>,
    /// The acts.
    pub acts: Vec<ActAccount>,
    /// Alarms, as devices and cloud counted them.
    pub alarms: KindAccount,
    /// The devices' reports on themselves.
    pub reports: KindAccount,
    /// Readings.
    pub readings: KindAccount,
    /// The gateway's ledger, over both its starts, by class.
    pub ledger: Vec<ClassStatus>,
}

/// The alarms that were due in one act.
#[derive(Clone, Debug, Serialize)]
pub struct ActAccount {
    /// The act.
    pub name: &'static str,
    /// Whether the uplink was away in it.
    pub uplink_away: bool,
    /// How many arrived.
    pub alarms: u64,
    /// The longest time from due to the cloud; `None` without any.
    pub worst_us: Option<u64>,
    /// 99 of 100 took no longer.
    pub p99_us: Option<u64>,
    /// How late this machine's own timers were at most.
    pub machine_late_us: u64,
}

impl Account {
    /// Adds it up. `gateway` is what it said at the very end; `late_micros`, how late the machine
    /// itself was in each act.
    #[must_use]
    pub fn new(
        fleet: FleetAccount,
        gateway: Option<Status>,
        late_micros: [u64; ACTS.len()],
    ) -> Self {
        let missing = fleet.alarms_lost.unwrap_or_default();
        let ledger = gateway.map(|status| status.classes);
        let balanced = ledger
            .as_ref()
            .map(|classes| classes.iter().all(|class| class.unaccounted() == 0));
        Self {
            seconds: fleet.run.seconds,
            interrupted: fleet.run.stopped,
            alarms_lost: lost(missing, ledger.as_deref()),
            balanced,
            acts: acts(&fleet, late_micros),
            alarms: fleet.alarm,
            reports: fleet.report,
            readings: fleet.reading,
            ledger: ledger.unwrap_or_default(),
        }
    }

    /// How the command ends: 1 when an alarm is missing or the ledger does not balance, or nobody
    /// knows though the story was played to its end.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.alarms_lost, self.balanced) {
            (Some(1..), _) | (_, Some(false)) => Exit::Failed,
            _ if self.interrupted => Exit::Interrupted,
            (Some(0), Some(true)) => Exit::Done,
            _ => Exit::Failed,
        }
    }
}

/// Of those missing in the cloud, what is lost at least. What the gateway has may be others, which came twice:
/// then nobody knows.
fn lost(missing: u64, ledger: Option<&[ClassStatus]>) -> Option<u64> {
    let first = ledger.and_then(<[_]>::first);
    match first.map(|first| first.in_memory + first.on_disk) {
        _ if missing == 0 => Some(0),
        Some(here) if missing > here => Some(missing - here),
        _ => None,
    }
}

fn acts(fleet: &FleetAccount, late_micros: [u64; ACTS.len()]) -> Vec<ActAccount> {
    let phases = ACTS.iter().zip(&fleet.phases).zip(late_micros);
    let acts = phases.map(|((act, phase), machine_late_us)| {
        let any = phase.alarms_arrived > 0;
        ActAccount {
            name: act.name,
            uplink_away: act.is_uplink_away,
            alarms: phase.alarms_arrived,
            worst_us: any.then_some(phase.alarm_latency.max_us),
            p99_us: any.then_some(phase.alarm_latency.p99_us),
            machine_late_us,
        }
    });
    acts.collect()
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = if self.interrupted {
            ", ended early"
        } else {
            ""
        };
        writeln!(f, "What came of it in {:.0} s{ended}\n", self.seconds)?;
        self.write_acts(f)?;
        self.write_ledger(f)?;
        self.write_ends(f)?;
        match self.alarms_lost {
            Some(lost) => writeln!(f, "\nalarms lost: {}", grouped(lost)),
            None => writeln!(
                f,
                "\nalarms lost: not known: some did not arrive; the gateway may have these, or others"
            ),
        }
    }
}

impl Account {
    fn write_acts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<22}{:>9}{:>12}{:>13}{:>13}",
            "alarms due in", "arrived", "99 of 100", "the slowest", "this machine"
        )?;
        for (index, act) in self.acts.iter().enumerate() {
            let shown = |micros: Option<u64>| micros.map_or_else(|| "-".to_owned(), latency);
            writeln!(
                f,
                "{} {:<20}{:>9}{:>12}{:>13}{:>13}{}",
                index + 1,
                act.name,
                grouped(act.alarms),
                shown(act.p99_us),
                shown(act.worst_us),
                latency(act.machine_late_us),
                if act.uplink_away { " no uplink" } else { "" }
            )?;
        }
        writeln!(
            f,
            "Times from due to the cloud. This machine: how late its own timers were at most.\n"
        )
    }

    fn write_ledger(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(balanced) = self.balanced else {
            return writeln!(
                f,
                "The gateway's ledger is not known: it was dead at the end.\n"
            );
        };
        writeln!(
            f,
            "{:<10}{:>9}{:>7} ={:>10}{:>12}{:>8}{:>11}{:>9}",
            "ledger",
            "received",
            "found",
            "delivered",
            "superseded",
            "other",
            "in memory",
            "on disk"
        )?;
        for class in self
            .ledger
            .iter()
            .filter(|class| !class.delivery.is_empty())
        {
            let delivered = class.ended.count(Outcome::Delivered);
            let superseded = class.ended.count(Outcome::Superseded);
            let ended: u64 = class.ended.0.iter().sum();
            writeln!(
                f,
                "{:<10}{:>9}{:>7} ={:>10}{:>12}{:>8}{:>11}{:>9}",
                class.name,
                grouped(class.received + class.made_here),
                class.found,
                grouped(delivered),
                grouped(superseded),
                grouped(ended.saturating_sub(delivered + superseded)),
                grouped(class.in_memory),
                grouped(class.on_disk),
            )?;
        }
        let verdict = if balanced {
            "balances in every class"
        } else {
            "DOES NOT BALANCE"
        };
        writeln!(
            f,
            "The ledger, over both starts of the gateway, {verdict}.\n\
             Found: left on disk by kill -9 and not in the ledger yet, less what it took.\n"
        )
    }

    fn write_ends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrived = |kind: &KindAccount| {
            kind.far_end.as_ref().map_or((0, 0, 0), |far| {
                (far.arrived, far.duplicate, far.final_values_missing)
            })
        };
        let (alarms, repeated, _) = arrived(&self.alarms);
        let (readings, _, finals_missing) = arrived(&self.readings);
        let topics = u64::from(DEVICES * CHANNELS);
        writeln!(
            f,
            "alarms    {} sent, {} acknowledged; {} in the cloud ({} twice)\n\
             readings  {} sent, {} in the cloud; final values there: {} of {topics}",
            grouped(self.alarms.sent),
            grouped(self.alarms.acknowledged),
            grouped(alarms),
            grouped(repeated),
            grouped(self.readings.sent),
            grouped(readings),
            topics.saturating_sub(finals_missing),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::status::Ended;
    use firmware_sim::account::{FarEnd, Latency, PhaseAccount, Run};

    const LATE: [u64; ACTS.len()] = [1_500; ACTS.len()];

    fn fleet(missing: u64, stopped: bool) -> FleetAccount {
        let latency = Latency {
            p50_us: 900,
            p99_us: 1_500,
            p999_us: 2_000,
            max_us: 2_345,
        };
        let phase = |alarms_arrived| PhaseAccount {
            kind: "steady",
            alarms_arrived,
            alarm_latency: latency,
        };
        let kind = KindAccount {
            sent: 1_200,
            acknowledged: 1_200,
            far_end: Some(FarEnd {
                arrived: 1_200 - missing,
                missing,
                duplicate: 3,
                out_of_order: 0,
                final_values_missing: 0,
                latency,
            }),
            ..KindAccount::default()
        };
        FleetAccount {
            run: Run {
                devices: DEVICES,
                protocol: "5",
                seed: 1,
                topics_per_channel: 1,
                seconds: 60.0,
                stopped,
                sent_per_second: 1.0,
                connections_refused: 0,
                connections_broken: 0,
                memory_per_device_bytes: 0,
            },
            alarm: kind.clone(),
            report: kind.clone(),
            reading: kind,
            alarms_lost: Some(missing),
            phases: vec![phase(200), phase(0), phase(3), phase(4), phase(5)],
            strangers: Some(0),
        }
    }

    fn gateway(in_memory: u64, received: u64) -> Status {
        let class = ClassStatus {
            name: "critical".to_owned(),
            delivery: "guaranteed".into(),
            received,
            ended: Ended([1_200, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            in_memory,
            ..ClassStatus::default()
        };
        Status {
            classes: vec![class],
            ..Status::default()
        }
    }

    #[test]
    fn does_the_exit_code_say_the_truth() {
        for (missing, stopped, gateway, lost, exit) in [
            (0, false, Some(gateway(0, 1_200)), Some(0), Exit::Done),
            (1, false, Some(gateway(0, 1_200)), Some(1), Exit::Failed),
            (0, false, Some(gateway(0, 1_201)), Some(0), Exit::Failed),
            (0, false, None, Some(0), Exit::Failed),
            (7, true, Some(gateway(7, 1_207)), None, Exit::Interrupted),
            (7, false, Some(gateway(7, 1_207)), None, Exit::Failed),
            (8, true, Some(gateway(7, 1_207)), Some(1), Exit::Failed),
            (8, true, None, None, Exit::Interrupted),
        ] {
            let account = Account::new(fleet(missing, stopped), gateway, LATE);
            assert_eq!(
                (account.alarms_lost, account.exit()),
                (lost, exit),
                "{account}"
            );
        }
    }

    #[test]
    fn does_the_account_fit_a_terminal_and_end_with_the_verdict() {
        let text = Account::new(fleet(0, false), Some(gateway(0, 1_200)), LATE).to_string();
        assert!(
            text.lines().all(|line| line.chars().count() <= 80),
            "{text}"
        );
        assert!(text.contains("balances in every class"), "{text}");
        assert!(text.ends_with("\nalarms lost: 0\n"), "{text}");
        let wrong = Account::new(fleet(2, false), Some(gateway(0, 1_201)), LATE).to_string();
        assert!(wrong.contains("DOES NOT BALANCE") && wrong.ends_with("lost: 2\n"));
    }

    #[test]
    fn is_the_account_read_by_a_program_too() {
        let account = Account::new(fleet(0, false), Some(gateway(0, 1_200)), LATE);
        let json = serde_json::to_value(&account).unwrap();
        assert_eq!(json["alarms_lost"], 0);
        assert_eq!(json["balanced"], true);
        assert_eq!(json["acts"][0]["worst_us"], 2_345);
        assert!(json["acts"][1]["worst_us"].is_null());
    }
}
