//! The newest events, read back from the store: as many as followers may want at once, and not the whole log.

use super::records::keys;
use super::state::{EVENTS_IN_MEMORY, State};
use super::{load, number};
use crate::access::now;
use crate::store::{Entry, Store, StoreError};

/// Events that are read at once.
const PAGE: usize = 500;

/// So many are enough, where looking for more would cost another look.
const ENOUGH: usize = EVENTS_IN_MEMORY / 2;

/// How far back, from now, the first look for the newest events goes; each further one goes twice as far.
const LOOK_BACK_MS: u64 = 1_000;

/// How far the numbers of events may be ahead of the clock: a rollout over ten thousand nodes writes more of them in a
/// second than a second has numbers.
const AHEAD_MS: u64 = 3_600_000;

/// The newest events beside those that are known already, and the number of the next.
pub(super) async fn events(store: &dyn Store, state: &mut State) -> Result<(), StoreError> {
    let known = state.events.back().map_or(0, |event| event.seq);
    let found = match &state.cluster {
        None => all_but_old(store, known).await?,
        Some(_) => newest(store, known, number::at(now())).await?,
    };
    if found.begins > known {
        state.events.clear(); // what came between is not known
    }
    state.events.extend(found.entries.iter().filter_map(load::event));
    let excess = state.events.len().saturating_sub(EVENTS_IN_MEMORY);
    state.events.drain(..excess);
    // By its key: also one that cannot be read has its number.
    let last = found.entries.last().and_then(|last| last.key[keys::EVENTS.len()..].parse().ok());
    state.next_event = (last.unwrap_or(known) + 1).max(state.next_event);
    Ok(())
}

/// All events whose numbers are above `begins`, or the newest of them.
struct Found {
    begins: u64,
    entries: Vec<Entry>,
}

/// With the embedded store numbers count up, and the log is limited: what is old is passed over.
async fn all_but_old(store: &dyn Store, known: u64) -> Result<Found, StoreError> {
    let (mut after, mut entries) = (keys::event(known), Vec::new());
    loop {
        let (page, _) = store.scan(keys::EVENTS, &after, PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.key);
        entries.extend(page);
        let excess = entries.len().saturating_sub(EVENTS_IN_MEMORY);
        entries.drain(..excess);
    }
    Ok(Found { begins: known, entries })
}

/// Among several controllers numbers tell the time, and a log may hold a hundred times what is wanted of it: hundreds
/// of pages, while a fleet waits. So the number is looked for from which on there are enough.
async fn newest(store: &dyn Store, known: u64, now: u64) -> Result<Found, StoreError> {
    // From `many` on there are too many; from `few` on, too few.
    let (mut many, mut few) = (None, now + AHEAD_MS * number::PER_MS);
    let mut back = LOOK_BACK_MS;
    loop {
        let begins = match many {
            Some(many) => many + (few - many) / 2,
            None => number::floor(now, back).max(known),
        };
        let (entries, _) =
            store.scan(keys::EVENTS, &keys::event(begins), EVENTS_IN_MEMORY + 1).await?;
        let close = many.is_some_and(|many| few - many <= 1);
        match entries.len() {
            count if count > EVENTS_IN_MEMORY && !close => many = Some(begins),
            count if count >= ENOUGH || begins == known || close => {
                return Ok(Found { begins, entries });
            }
            _ => few = begins,
        }
        back = back.saturating_mul(2);
    }
}

#[cfg(test)]
mod tests;
