//! Panics on this thread. tokio catches the panic of a task, so it would not be seen otherwise.

use std::{cell::RefCell, panic};

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the panics of threads that run seeds from now on, instead of printing them.
pub fn watch() {
    panic::set_hook(Box::new(|info| {
        let said = info.to_string();
        FIRST.with(|first| {
            first.borrow_mut().get_or_insert(said);
        });
    }));
}

/// The first panic since the last call.
pub fn take() -> Option<String> {
    FIRST.with(|first| first.borrow_mut().take())
}
