//! Lists that are read a piece at a time: so many rows, and no more bytes than fit anywhere.

use futures_util::{Stream, TryStreamExt};

use super::Result;

/// Bytes of the rows of a piece, roughly. One that is longer comes alone.
const MOST: usize = 8 << 20;

/// A piece of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    /// In their order.
    pub rows: Vec<T>,
    /// There is more where these end.
    pub more: bool,
}

/// Reads at most `limit` rows, of so many bytes each.
pub(super) async fn listed<R, T>(
    mut all: impl Stream<Item = sqlx::Result<R>> + Unpin,
    limit: usize,
    of: impl Fn(R) -> Result<(T, usize)>,
) -> Result<Listed<T>> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(row) = all.try_next().await? {
        let (row, size) = of(row)?;
        bytes += size;
        if rows.len() >= limit || (bytes > MOST && !rows.is_empty()) {
            return Ok(Listed { rows, more: true });
        }
        rows.push(row);
    }
    Ok(Listed { rows, more: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_piece_ends_by_number_or_by_bytes_and_says_so() {
        let piece = async |sizes: &[usize], limit| {
            let all = futures_util::stream::iter(sizes.iter().copied().map(Ok));
            let piece = listed(all, limit, |size: usize| Ok((size, size))).await.unwrap();
            (piece.rows.len(), piece.more)
        };
        assert_eq!(piece(&[], 3).await, (0, false));
        assert_eq!(piece(&[1, 1, 1], 3).await, (3, false));
        assert_eq!(piece(&[1, 1, 1], 2).await, (2, true));
        assert_eq!(piece(&[MOST, 1, 1], 3).await, (1, true));
        assert_eq!(piece(&[MOST + 1], 3).await, (1, false), "alone rather than never");
    }
}
