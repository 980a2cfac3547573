//! What panicked on this thread. tokio catches a task's panic, and nobody else would see it.

use std::{cell::RefCell, panic};

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// From now on panics of threads that run seeds are kept, and not printed.
pub fn watch() {
    panic::set_hook(Box::new(|info| {
        let said = info.to_string();
        FIRST.with(|first| {
            first.borrow_mut().get_or_insert(said);
        });
    }));
}

/// The first since this was last asked.
pub fn take() -> Option<String> {
    FIRST.with(|first| first.borrow_mut().take())
}
