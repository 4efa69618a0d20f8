//! Units that a timer starts, as CronJobs.

use super::{Lowered, PlannedUnit, UnitSet};
use crate::{
    diagnostic::Findings,
    fleet::{timer::Timer, unit::Unit},
    workload::WorkloadKind,
};

/// Seconds after its time in which a CronJob may still start what a timer would not start late: a timer's own accuracy.
const LATEST: i64 = 60;

impl UnitSet<'_> {
    /// Whether somebody has started a unit, rather than a timer or its being there.
    pub fn is_started(&self, one: &PlannedUnit) -> bool {
        self.settings.started.as_ref().is_some_and(|s| s.contains(one.unit.name.full()))
    }

    /// The unit that `timer` starts, where that can be told to a CronJob: one that ends, and is not to be on every machine.
    pub fn timed_by(&self, timer: &Unit) -> Option<&PlannedUnit> {
        let one = self.units.iter().find(|one| timer.starts.as_deref() == Some(one.unit.name.full()))?;
        let again = matches!(one.unit.service.restart.as_deref(), Some("always" | "on-success"));
        let ends = one.runs() && !one.stays() && !again && !one.unit.fleet.global;
        (ends && !timer.timer.times.is_empty()).then_some(one)
    }

    /// Whether a unit is started by a timer only, by way of a CronJob.
    pub fn is_timed(&self, one: &PlannedUnit) -> bool {
        let started = self.settings.started.as_ref();
        let mut timers = self.others.iter().filter(|t| started.is_none_or(|s| s.contains(t.name.full())));
        !self.is_started(one) && timers.any(|t| self.timed_by(t).is_some_and(|of| of.object == one.object))
    }

    /// The unit of another type that starts one that nobody has started.
    pub(super) fn started_by(&self, one: &PlannedUnit) -> Option<&Unit> {
        let starts = |u: &&Unit| u.starts.as_deref() == Some(one.unit.name.full());
        self.others.iter().find(starts).filter(|_| !self.is_started(one))
    }

    /// Compiles a unit as that which `timer` starts. What comes of it is the timer's.
    pub fn lower_timed(&self, timer: &Unit, one: &PlannedUnit, found: &mut Findings) -> Lowered {
        let Timer { times, persistent } = &timer.timer;
        let kind = WorkloadKind::CronJob {
            times: times.iter().map(|time| (time.schedule.clone(), time.zone.clone())).collect(),
            // systemd starts nothing that it comes too late for, unless it is told to.
            deadline: (!persistent).then_some(LATEST),
            retries: one.retries(),
        };
        // Several timers may start one unit.
        let own = timer.name.stem() == one.unit.name.stem();
        let name = if own { one.object.clone() } else { timer.name.object() };
        Lowered { name: timer.name.clone(), ..self.lower_as(one, name, kind, found) }
    }
}
