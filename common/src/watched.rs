//! Threads that others wait for: a panic in one is told to them, who would wait for ever otherwise.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::{self, JoinHandle},
};

use crate::pool::panic_text;

/// Runs `body` in a thread called `name` (the kernel shows the first 15 octets), and `panicked`
/// with a sentence about it if that panics.
///
/// # Errors
/// Whatever the operating system has against another thread.
pub fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
    panicked: impl FnOnce(String) + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let text = format!("thread {name:?} panicked");
    thread::Builder::new().name(name.into()).spawn(move || {
        // What it leaves half done is used by nobody any more.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            panicked(format!("{text}: {}", panic_text(panic.as_ref())));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_panic_is_told_and_a_regular_end_is_not() {
        for (panics, told) in [(true, vec!["thread \"test\" panicked: planned"]), (false, vec![])] {
            let (texts, heard) = channel();
            let body = move || assert!(!panics, "planned");
            spawn("test", body, move |text| texts.send(text).unwrap()).unwrap().join().unwrap();
            assert_eq!(heard.into_iter().collect::<Vec<_>>(), told);
        }
    }
}
