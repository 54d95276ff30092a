//! Pages in gzip's form, to whoever takes that.

use std::sync::{Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use flate2::{Compress, Compression, FlushCompress, Status};

/// RFC 1952, 2.3: deflate, no flags, no time, the quickest form, from Unix.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 3];
/// What is made of room at a time.
const STEP: usize = 8 * 1024;

/// Packs one page after the other with the same tables: making them takes as long as the packing of a
/// small page. About 330 KiB are kept from the first page on.
#[derive(Debug, Default)]
pub struct Gzip {
    deflate: Mutex<Option<Compress>>,
}

impl Gzip {
    /// `body` of this type, packed when it is at least `worth` bytes long and `asked` allows it.
    pub fn answer(
        &self,
        asked: &HeaderMap,
        kind: &'static str,
        body: impl Into<Vec<u8>>,
        worth: usize,
    ) -> Response {
        let body = body.into();
        let small =
            (body.len() >= worth && accepts_gzip(asked)).then(|| self.pack(&body)).flatten();
        let is_packed = small.is_some();
        let mut response = Body::from(small.unwrap_or(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_packed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// `page` as a gzip file of one member; `None` when it cannot be packed.
    pub fn pack(&self, page: &[u8]) -> Option<Vec<u8>> {
        let mut deflate = self.deflate.lock().unwrap_or_else(PoisonError::into_inner);
        let deflate = deflate.get_or_insert_with(|| Compress::new(Compression::fast(), false));
        deflate.reset();
        let mut packed = Vec::with_capacity(page.len() / 8 + STEP);
        packed.extend_from_slice(&HEAD);
        loop {
            let rest = page.get(usize::try_from(deflate.total_in()).ok()?..)?;
            match deflate.compress_vec(rest, &mut packed, FlushCompress::Finish).ok()? {
                Status::StreamEnd => break,
                Status::Ok | Status::BufError => packed.reserve(STEP),
            }
        }
        // The length is told modulo 2^32, as the format has it.
        packed.extend_from_slice(&crc32fast::hash(page).to_le_bytes());
        packed.extend_from_slice(&(page.len() as u32).to_le_bytes());
        Some(packed)
    }
}

/// Whether who asks takes gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted =
        headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|it| it.to_str().ok());
    accepted.flat_map(|it| it.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_nothing = |part: &str| {
            let weight = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.parse() == Ok(0.0))
        };
        is_gzip && !parts.any(is_nothing)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = GzDecoder::new(packed);
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(file.into_inner(), b"", "nothing follows");
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_pages_come_out_as_they_went_in(
            pages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40_000), 1..4),
        ) {
            let gzip = Gzip::default();
            for page in pages {
                prop_assert_eq!(unpacked(&gzip.pack(&page).unwrap()), page);
            }
        }
    }

    #[test]
    fn a_page_leaves_nothing_to_the_next() {
        let gzip = Gzip::default();
        let (long, short) = ("pm2_process_up 1\n".repeat(40_000), "pm2_up 1\n");
        let first = gzip.pack(long.as_bytes()).unwrap();
        assert!(first.len() < long.len() / 50, "{}", first.len());
        let packed = gzip.pack(short.as_bytes()).unwrap();
        assert_eq!(packed, Gzip::default().pack(short.as_bytes()).unwrap());
        assert_eq!(unpacked(&packed), short.as_bytes());
    }

    #[test]
    fn it_is_given_to_who_takes_it() {
        let takes = |accepted: &'static str| {
            let value = HeaderValue::from_static(accepted);
            accepts_gzip(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)]))
        };
        assert!(takes("gzip, deflate, br") && takes("br,gzip") && takes("gzip;q=0.5"));
        assert!(!takes("gzip;q=0") && !takes("") && !takes("identity"));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
