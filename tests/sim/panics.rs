//! A replica that panics is a replica that fails, whoever catches it: the runtime does, for its tasks.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on, panics on this thread are kept instead of printed.
pub fn listen() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_kept =
                HEARD.with_borrow_mut(|heard| heard.as_mut().map(|heard| heard.push(format!("{info}"))).is_some());
            if !is_kept {
                before(info);
            }
        }));
    });
    HEARD.set(Some(Vec::new()));
}

/// What was heard since.
pub fn heard() -> Vec<String> {
    HEARD.take().unwrap_or_default()
}
