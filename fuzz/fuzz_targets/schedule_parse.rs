//! Any text: it is refused at a place inside it, or its canonical text is the same schedule.

#![no_main]

use adjutant::schedule::{Schedule, Zone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match text.parse::<Schedule>() {
        Ok(schedule) => {
            let canonical = schedule.to_string();
            let again: Schedule = canonical.parse().expect("canonical text can be read");
            assert_eq!(again, schedule);
            assert_eq!(again.to_string(), canonical);
            assert_eq!(again.min_interval(), schedule.min_interval());
            let sentence = schedule.describe();
            assert!(sentence.starts_with("Fires ") && sentence.ends_with('.'));
        }
        Err(error) => {
            assert!(text.is_char_boundary(error.offset()));
            assert!(!error.expected().is_empty());
            assert!(error.suggestion().is_none_or(|suggestion| suggestion != text));
        }
    }
    // Whatever language the text is in, it is read as a schedule of ours or refused at a place inside it.
    match Schedule::read_lenient(text) {
        Ok(read) => {
            let again = read.schedule.to_string().parse::<Schedule>();
            assert_eq!(again.as_ref(), Ok(&read.schedule));
            let strict = text.trim().parse::<Schedule>();
            assert!(read.note.is_some() || strict.as_ref() == Ok(&read.schedule));
        }
        Err(error) => assert!(text.is_char_boundary(error.offset())),
    }
    if let Ok(zone) = text.parse::<Zone>() {
        assert_eq!(zone.to_string().parse::<Zone>().as_ref(), Ok(&zone));
    }
});
