//! Tables `instance_tags`, `command_tags` and `invocation_tags`.

use rusqlite::types::Value;

use crate::error::Result;
use crate::tag::Tag;

use super::{Tx, unreadable};

/// What tags are on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tagged {
    Instance,
    Command,
    Invocation,
}

impl Tagged {
    const fn name(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Command => "command",
            Self::Invocation => "invocation",
        }
    }

    /// Puts tags on a row that has none.
    pub(super) fn insert(self, tx: Tx<'_>, row: i64, tags: &[Tag]) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        let name = self.name();
        let mut insert = tx.prepare(&format!(
            "INSERT INTO {name}_tags ({name}, key, value) VALUES (?1, ?2, ?3)"
        ))?;
        for tag in tags {
            insert.execute((row, &tag.key, &tag.value))?;
        }
        Ok(())
    }

    /// Takes all tags off a row.
    pub(super) fn clear(self, tx: Tx<'_>, row: i64) -> Result<()> {
        let name = self.name();
        tx.execute(&format!("DELETE FROM {name}_tags WHERE {name} = ?1"), [row])?;
        Ok(())
    }

    /// A column with the tags of the row that `id` is the key of; see [`read`].
    pub(super) fn column(self, id: &str) -> String {
        let name = self.name();
        format!(
            "(SELECT json_group_array(json_array(CAST(t.key AS TEXT), CAST(t.value AS TEXT)) ORDER BY t.id)
              FROM {name}_tags t WHERE t.{name} = {id})"
        )
    }

    /// Conditions that the row, which `id` is the key of, has all of these tags; the values that
    /// they take are added.
    pub(super) fn conditions(self, id: &str, tags: &[Tag], values: &mut Vec<Value>) -> Vec<String> {
        let name = self.name();
        let condition = format!(
            "EXISTS (SELECT 1 FROM {name}_tags o WHERE o.{name} = {id} AND o.key = ? AND o.value = ?)"
        );
        values
            .extend(tags.iter().flat_map(|tag| [tag.key.clone().into(), tag.value.clone().into()]));
        vec![condition; tags.len()]
    }
}

/// The tags in a column.
pub(super) fn read(row: &rusqlite::Row<'_>, column: usize) -> Result<Vec<Tag>> {
    let text = row.get_ref(column)?.as_str().map_err(unreadable)?;
    let tags: Vec<(String, String)> = serde_json::from_str(text).map_err(unreadable)?;
    Ok(tags.into_iter().map(Tag::from).collect())
}
