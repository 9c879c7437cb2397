//! What is in an artifact of the controller, to compare it with another one.

use rota_rollout::names::Digest;

use super::{ArtifactError, ArtifactStore, blocking};
use crate::artifact::{Format, Listing, list};

impl ArtifactStore {
    /// Its files. `Err` inside: why it is not looked through.
    pub async fn files(
        &self,
        digest: &Digest,
        format: Format,
    ) -> Result<Result<Listing, String>, ArtifactError> {
        let path = self.places.blob(digest);
        let missing = ArtifactError::Missing { digest: digest.clone() };
        let _one = self.listing.lock().await; // it reads a whole archive: one after the other
        blocking(move || if path.is_file() { Ok(list(&path, format)) } else { Err(missing) }).await
    }
}
