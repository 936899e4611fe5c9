//! Table `client_tokens`: the answers that a repeated request gets again.

use rusqlite::OptionalExtension;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::invocation::client_token::ClientToken;

use super::{Tx, unreadable};

/// How long a token is known.
const KEPT_MS: i64 = 24 * 3600 * 1000;
/// Old tokens that are forgotten with each new one: more than one, so that they get fewer.
const FORGOTTEN_MAX: i64 = 16;

/// The answer to the first request with this token, and what `op` came to if this is the first;
/// then the answer is `response`.
pub(crate) fn once<R: Serialize + DeserializeOwned, T>(
    tx: Tx<'_>,
    token: &ClientToken,
    now_ms: i64,
    response: R,
    op: impl FnOnce() -> Result<Option<T>>,
) -> Result<(R, Option<T>)> {
    let known = tx
        .prepare_cached(
            "SELECT request_sha256, response FROM client_tokens WHERE token = ?1 AND created_at_ms > ?2",
        )?
        .query_row((&token.token, now_ms.saturating_sub(KEPT_MS)), |row| {
            Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?))
        })
        .optional()?;
    if let Some((request_sha256, response)) = known {
        if request_sha256 != token.request_sha256 {
            return Err(Error::Conflict {
                code: "IdempotentParameterMismatch",
                message: format!(
                    "ClientToken: `{}` came with another request in the last 24 hours; give this one its own",
                    token.token
                ),
            });
        }
        return Ok((serde_json::from_str(&response).map_err(unreadable)?, None));
    }
    let done = op()?;
    tx.prepare_cached(
        "DELETE FROM client_tokens WHERE id IN (
             SELECT id FROM client_tokens WHERE created_at_ms <= ?1 ORDER BY created_at_ms LIMIT ?2)
         OR token = ?3",
    )?
    .execute((now_ms.saturating_sub(KEPT_MS), FORGOTTEN_MAX, &token.token))?;
    tx.prepare_cached(
        "INSERT INTO client_tokens (token, request_sha256, response, created_at_ms) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute((
        &token.token,
        token.request_sha256,
        serde_json::to_string(&response).map_err(unreadable)?,
        now_ms,
    ))?;
    Ok((response, done))
}
