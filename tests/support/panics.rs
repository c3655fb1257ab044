//! Panics of tasks: a runtime catches them, and only the hook tells.

use std::cell::Cell;
use std::sync::Once;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// How often this thread has panicked since this was first asked for, caught or not.
pub fn panics() -> u32 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            report(info);
        }));
    });
    PANICS.with(Cell::get)
}
