//! What the day came to.

use super::Plan;
use super::office::Office;
use crate::phases::{Mark, seconds};
use crate::report::Point;
use crate::summary::Summary;

impl Office {
    pub(super) fn summarise(&self, plan: &Plan, (from, to): &(Mark, Mark), series: Vec<Point>) -> Summary {
        let (sent, due) = (self.authors.sent(), self.authors.due_until(to.at));
        let (expected, dings) = (self.expected(), self.dinger.sent());
        let measured_s = plan.measured.as_secs_f64();
        let mut summary = Summary::new("mixed");
        summary.figure("sessions", "users, one session each", f64::from(plan.users), "");
        summary.figure("messages", "messages", sent as f64, "");
        summary.figure("delivered", "deliveries, those to the authors' devices included", self.arrived as f64, "");
        summary.figure("marks", "read marks", self.marked.len() as f64, "");
        summary.figure("dings", "DINGs", f64::from(dings), "");
        summary.figure("reconnects", "reconnects", self.returned.len() as f64, "");
        summary.figure("offered_per_s", "messages a second, offered", due as f64 / measured_s, "/s");
        summary.figure("achieved_per_s", "  durable", self.acked as f64 / seconds(from, to).max(measured_s), "/s");
        let cores = from.broker_cpu_s_until(to).map(|cpu_s| cpu_s / seconds(from, to).max(1e-6));
        summary.broker("broker.cores", "broker's CPU", cores, "cores");
        let cpu_us = from.broker_cpu_us_until(to, sent);
        summary.broker("broker.cpu_us_per_message", "  a message, with all that follows from it", cpu_us, "µs");
        let mib = to.broker.map(|usage| usage.resident_kib as f64 / 1_024.0);
        summary.broker("broker.resident_mib", "broker's memory", mib, "MiB");
        summary.spread("published", "message: due to durable", &self.published);
        summary.spread("latency", "message: due to delivered to others", &self.delivered);
        summary.spread("marked", "mark: due to durable", &self.marked);
        summary.spread("pushed", "DING: due to pushed", &self.pushes.pushed.histogram());
        summary.spread("known", "DING: due to confirmed, known", &self.dinger.known.histogram());
        summary.spread("returned", "reconnect: due to caught up", &self.returned);
        summary.measured(from, to, self.authors.late_ms_max());
        summary.series = series;
        let arrived = self.arrived;
        summary.expect(sent == due, || format!("{} messages that were due were never sent", due.saturating_sub(sent)));
        summary.expect(self.acked == sent, || format!("{} of {sent} messages have an answer", self.acked));
        summary.expect(arrived == expected, || format!("{arrived} of {expected} deliveries came"));
        summary.expect(self.misplaced == 0, || format!("{} came again or out of order", self.misplaced));
        let (pushed, known) = (self.pushes.pushed.seen(), self.dinger.known.seen());
        summary.expect(pushed == dings, || format!("{pushed} of {dings} DINGs were pushed"));
        summary.expect(known == dings, || format!("of {known} of {dings} DINGs it is known that they were confirmed"));
        summary.complaints.extend(self.pushes.refused().map(|why| format!("a confirmation was refused: {why}")));
        let (returned, dropped) = (self.returned.len(), u64::from(self.dropped));
        summary.expect(returned == dropped, || format!("{returned} of {dropped} who dropped are back"));
        summary
    }
}
