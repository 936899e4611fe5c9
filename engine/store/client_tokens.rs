//! Table `client_tokens`: the answers that a repeated request gets again.

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
    if let Some((request_sha256, response)) = find(tx, token, now_ms)? {
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
    tx.execute(
        "DELETE FROM client_tokens WHERE id IN (
             SELECT id FROM client_tokens WHERE created_at_ms <= ?1 ORDER BY created_at_ms LIMIT ?2)
         OR (caller = ?3 AND token = ?4)",
        (now_ms.saturating_sub(KEPT_MS), FORGOTTEN_MAX, &token.caller, &token.token),
    )?;
    tx.execute(
        "INSERT INTO client_tokens (caller, token, request_sha256, response, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        (
            &token.caller,
            &token.token,
            token.request_sha256,
            serde_json::to_string(&response).map_err(unreadable)?,
            now_ms,
        ),
    )?;
    Ok((response, done))
}

/// Whether a token has been given before.
pub(crate) fn is_known(tx: Tx<'_>, token: &ClientToken, now_ms: i64) -> Result<bool> {
    Ok(find(tx, token, now_ms)?.is_some())
}

/// What a token was first given with, and the answer.
fn find(tx: Tx<'_>, token: &ClientToken, now_ms: i64) -> Result<Option<([u8; 32], String)>> {
    tx.find(
        "SELECT request_sha256, response FROM client_tokens
         WHERE caller = ?1 AND token = ?2 AND created_at_ms > ?3",
        (&token.caller, &token.token, now_ms.saturating_sub(KEPT_MS)),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )
}
