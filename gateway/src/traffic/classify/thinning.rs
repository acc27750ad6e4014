//! What `every`, `thin` and `summary` add to the fate of a message, as sentences for the operator.

use super::explain::time;
use super::fate::{Fate, coming_home};
use crate::traffic::queue::ClassSettings;
use crate::traffic::queue::summary::{Figure, SummarySettings};

impl Fate {
    /// With what the class says of thinning.
    pub(super) fn thinned(mut self, class: &ClassSettings) -> Self {
        if let Some(every) = class.every {
            let every = time(every);
            self.calm = format!(
                "acknowledged when admitted to memory; of each key at most one value in {every} is sent: the first at once, then the newest at the end of each {every}; the others are superseded and counted"
            );
        }
        if let Some(thin) = class.thin {
            let (thin, home) = (time(thin), coming_home(class));
            let kept = format!(
                "; of what is superseded, one value of each key in {thin} goes to the spool within 5 s; {home}"
            );
            self.pressure.push_str(&kept);
            self.offline.push_str(&kept);
            self.disk_full = "when it is full, its oldest values there are evicted and counted; while it fails, the newest value of each key alone stays; a clean stop may have no room to keep it".into();
        }
        if let Some(summary) = &class.summary {
            let told = told(summary);
            for text in [&mut self.pressure, &mut self.offline] {
                text.push_str(&told);
            }
            if class.every.is_some() {
                self.calm.push_str(&told);
            }
        }
        self
    }
}

fn told(summary: &SummarySettings) -> String {
    let asked = Figure::ALL.iter();
    let asked = asked.filter(|(_, figure)| summary.of.contains(figure));
    let names: Vec<_> = asked.map(|(name, _)| *name).collect();
    format!(
        "; {} of the superseded numbers at {} go to {} when the value goes that stands for them",
        names.join(", "),
        summary.value.as_str(),
        summary.topic
    )
}

#[cfg(test)]
mod tests {
    use super::super::Pointer;
    use super::super::verdict::tests::classes;
    use super::*;
    use std::time::Duration;

    #[test]
    fn is_what_gives_way_told_before_it_does() {
        let [_, _, mut low] = <[_; 3]>::try_from(classes()).unwrap();
        let plain = Fate::of(&low);
        low.every = Some(Duration::from_secs(60));
        low.thin = Some(Duration::from_secs(3600));
        low.summary = Some(SummarySettings {
            value: Pointer::parse("/rms").unwrap(),
            of: vec![Figure::Max, Figure::Min],
            topic: "{topic}/summary".to_owned(),
        });
        let fate = Fate::of(&low);
        assert!(fate.calm.contains("at most one value in 1 min is sent"));
        for text in [&fate.pressure, &fate.offline] {
            assert!(text.contains("one value of each key in 1 h goes to the spool"));
            assert!(text.ends_with("; min, max of the superseded numbers at /rms go to {topic}/summary when the value goes that stands for them"));
        }
        assert!(fate.offline.starts_with(&plain.offline));
        assert_ne!(fate.disk_full, plain.disk_full);
    }
}
