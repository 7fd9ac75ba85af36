//! The wish that this process ends: the first SIGINT or SIGTERM lets the running steps end.

use tokio::sync::watch;

/// Resolves for everybody who waits once an end is asked for.
#[derive(Debug, Clone)]
pub struct Interrupt(watch::Receiver<bool>);

/// Asks for the end.
#[derive(Debug)]
pub struct Interrupter(watch::Sender<bool>);

impl Interrupt {
    /// A wish that nobody has yet, and who may have it.
    #[must_use]
    pub fn new() -> (Interrupter, Self) {
        let (tell, told) = watch::channel(false);
        (Interrupter(tell), Self(told))
    }

    /// Whether the end was asked for.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the end is asked for; for ever when nobody can.
    pub async fn wait(&self) {
        let mut told = self.0.clone();
        if told.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Interrupter {
    /// Asks for the end.
    pub fn interrupt(&self) {
        self.0.send_replace(true);
    }
}
