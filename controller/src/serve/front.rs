//! The runtime of its own that serves sessions, calls and pages.
//!
//! A fleet that comes back at once gives it seconds of work: ten thousand handshakes. What decides, and what keeps this
//! controller's place in the store, must not stand in line behind that: a lease of five seconds would run out.

use std::io;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::access::now;
use crate::engine::Heartbeat;

/// How often it says that it is awake.
const BEAT_EVERY: Duration = Duration::from_millis(250);

/// The runtime.
pub(super) struct Front(Option<Runtime>);

impl Front {
    /// As many threads as the host has cores.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().thread_name("front").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Says again and again that it gets to what waits. Where handshakes keep it, so does what agents say: then the
    /// engine must not take them for silent.
    pub(super) fn beat(&self, ears: Heartbeat) {
        self.spawn(async move {
            loop {
                ears.came(now());
                sleep(BEAT_EVERY).await;
            }
        });
    }

    /// Runs something there.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        match &self.0 {
            Some(runtime) => runtime.spawn(task),
            None => tokio::spawn(task),
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // To wait for its tasks is not possible in a runtime, and nobody needs their answers any more.
            runtime.shutdown_background();
        }
    }
}
