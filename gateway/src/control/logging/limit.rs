//! The layer that keeps a storm of lines from making an overload worse. In comes every line; out
//! goes yes or no, and each minute one line that counts the noes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::ACCOUNT;
use super::bucket::Bucket;
use crate::clock::Clock;
use crate::traffic::message::Tick;

/// Lines at once, all places together: a start, or the first signs of trouble, are told in full.
const BURST: u64 = 40;
/// Lines a minute after that; with the one that counts what was left out, ten.
const PER_MINUTE: u64 = 9;
/// Lines at once from one place in the code.
const PLACE_BURST: u64 = 10;
/// Lines a minute from one place after that, so that several chatterers leave room for what is new.
const PLACE_PER_MINUTE: u64 = 1;
/// Of [`BURST`], kept for errors: those must not drown in warnings.
const ERROR_RESERVE: u64 = 3;
/// How much of a line is kept as an example, in characters.
const EXAMPLE_CHARS_MAX: usize = 100;

/// The layer.
#[derive(Clone, Debug)]
pub(super) struct RateLimit {
    clock: Clock,
    book: Arc<Mutex<Book>>,
}

/// Tells what was left out.
#[derive(Clone, Debug)]
pub struct Suppressed {
    book: Arc<Mutex<Book>>,
}

/// Who may speak, and who was not let.
#[derive(Debug)]
struct Book {
    all: Bucket,
    /// One for each place in the code that ever logged: bounded by the program's text.
    places: HashMap<Identifier, Place>,
}

#[derive(Debug)]
struct Place {
    bucket: Bucket,
    left_out: u64,
    example: String,
}

impl RateLimit {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            book: Arc::new(Mutex::new(Book::new(clock.now()))),
        }
    }

    pub(super) fn suppressed(&self) -> Suppressed {
        Suppressed {
            book: Arc::clone(&self.book),
        }
    }
}

impl<S: Subscriber> Layer<S> for RateLimit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let line = event.metadata();
        if line.target() == ACCOUNT || *line.level() > Level::INFO {
            return true;
        }
        let mut book = lock(&self.book);
        let error = *line.level() == Level::ERROR;
        let passes = book.admit(line.callsite(), error, self.clock.now());
        if !passes {
            book.leave_out(line.callsite(), || example(event));
        }
        passes
    }
}

impl Suppressed {
    /// Logs how many lines were left out since the last call, if any were.
    pub fn report(&self) {
        let summary = lock(&self.book).summary();
        if let Some(summary) = summary {
            tracing::warn!(target: ACCOUNT, "{summary}");
        }
    }

    /// Reports once a minute, for ever.
    #[allow(clippy::disallowed_methods, reason = "the log's door waits a minute")]
    pub async fn report_each_minute(&self) {
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            self.report();
        }
    }
}

impl Book {
    fn new(now: Tick) -> Self {
        Self {
            all: Bucket::new(BURST, PER_MINUTE, now),
            places: HashMap::new(),
        }
    }

    fn admit(&mut self, place: Identifier, error: bool, now: Tick) -> bool {
        let place = self.places.entry(place).or_insert_with(|| Place {
            bucket: Bucket::new(PLACE_BURST, PLACE_PER_MINUTE, now),
            left_out: 0,
            example: String::new(),
        });
        let reserve = if error { 0 } else { ERROR_RESERVE };
        let passes = place.bucket.has(0, now) && self.all.has(reserve, now);
        if passes {
            place.bucket.take();
            self.all.take();
        }
        passes
    }

    fn leave_out(&mut self, place: Identifier, example: impl FnOnce() -> String) {
        let Some(place) = self.places.get_mut(&place) else {
            return;
        };
        if place.left_out == 0 {
            place.example = example();
        }
        place.left_out += 1;
    }

    /// One line for all that was left out, which is forgotten then.
    fn summary(&mut self) -> Option<String> {
        let total: u64 = self.places.values().map(|place| place.left_out).sum();
        let most = self
            .places
            .values_mut()
            .max_by_key(|place| place.left_out)?;
        if total == 0 {
            return None;
        }
        let (count, example) = (most.left_out, std::mem::take(&mut most.example));
        for place in self.places.values_mut() {
            place.left_out = 0;
        }
        let lines = if total == 1 { "line was" } else { "lines were" };
        Some(format!(
            "{total} {lines} left out of this log in the last minute; {count} like: {example}"
        ))
    }
}

/// A panic elsewhere must not silence the log.
fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn example(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    message.0.chars().take(EXAMPLE_CHARS_MAX).collect()
}

/// Picks the sentence out of a line.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(work: impl FnOnce(&Suppressed)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let limit = RateLimit::new(Clock::start());
        let suppressed = limit.suppressed();
        let subscriber = tracing_subscriber::registry()
            .with(
                tracing_subscriber::fmt::layer()
                    .with_ansi(false)
                    .with_writer(move || writer.clone()),
            )
            .with(limit);
        tracing::subscriber::with_default(subscriber, || work(&suppressed));
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn is_a_storm_from_one_place_left_out_and_counted() {
        let text = logged(|suppressed| {
            for n in 0..1000 {
                tracing::warn!("Client {n} talks nonsense");
            }
            suppressed.report();
            suppressed.report();
        });
        assert_eq!(text.matches("talks nonsense\n").count(), 11);
        let told =
            "990 lines were left out of this log in the last minute; 990 like: Client 10 talks";
        assert_eq!(text.matches(told).count(), 1, "{text}");
        assert_eq!(text.lines().count(), 11);
    }

    /// The places in the code that speak in `work`.
    fn places(work: impl FnOnce()) -> Vec<Identifier> {
        #[derive(Clone, Default)]
        struct Places(Arc<Mutex<Vec<Identifier>>>);
        impl<S: Subscriber> Layer<S> for Places {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(event.metadata().callsite());
            }
        }
        let places = Places::default();
        let subscriber = tracing_subscriber::registry().with(places.clone());
        tracing::subscriber::with_default(subscriber, work);
        places.0.lock().unwrap().clone()
    }

    /// Floods of everything that a sender or the upstream can make the gateway say, for an hour.
    #[test]
    fn are_there_ten_lines_a_minute_at_most_however_many_kinds_of_flood() {
        let places = places(|| {
            tracing::warn!("a malformed packet");
            tracing::warn!("a refused message");
            tracing::warn!("a dead letter");
            tracing::info!("a change of pressure");
            tracing::info!("a client that is taken over");
        });
        let mut book = Book::new(Tick::ZERO);
        let mut now = Tick::ZERO;
        let mut told = vec![0; places.len()];
        for minute in 0..60 {
            let mut lines = 0;
            for _ in 0..600 {
                now = now.after(Duration::from_millis(100));
                for (place, told) in places.iter().zip(&mut told) {
                    for _ in 0..20 {
                        if book.admit(place.clone(), false, now) {
                            lines += 1;
                            *told += 1;
                        } else {
                            book.leave_out(place.clone(), String::new);
                        }
                    }
                }
            }
            lines += u64::from(book.summary().is_some());
            assert!(
                minute == 0 || lines <= 10,
                "{lines} lines in minute {minute}"
            );
        }
        assert!(
            told.iter().all(|told| *told > 30),
            "who is never heard: {told:?}"
        );
    }

    #[test]
    fn do_errors_and_the_account_pass_a_storm_from_everywhere() {
        let text = logged(|_| {
            for _ in 0..100 {
                tracing::warn!("one");
                tracing::warn!("two");
                tracing::warn!("three");
                tracing::info!("four");
                tracing::info!("five");
            }
            for _ in 0..100 {
                tracing::error!("lost");
                tracing::info!(target: "tidegate::account", "ledger");
                tracing::debug!("asked for");
            }
        });
        let count = |word: &str| text.lines().filter(|line| line.ends_with(word)).count();
        let noise: usize = ["one", "two", "three", "four", "five"]
            .map(count)
            .iter()
            .sum();
        assert_eq!(noise, 37);
        assert_eq!(count("lost"), 3);
        assert_eq!(count("ledger"), 100);
        assert_eq!(count("asked for"), 100);
    }
}
