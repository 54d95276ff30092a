/// The policy that every page is written for: no inline style or script, nothing from
/// another host.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; \
     script-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'";

/// A static file.
#[derive(Debug)]
pub struct Asset {
    /// Its name under `/static/`.
    pub name: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// What is in it.
    pub body: &'static str,
    hash: u64,
}

impl Asset {
    const fn new(name: &'static str, content_type: &'static str, body: &'static str) -> Self {
        Self { name, content_type, body, hash: fnv1a(body.as_bytes()) }
    }

    /// Hash of what is in it, 16 hexadecimal digits: good as an `ETag`.
    pub fn hash(&self) -> String {
        format!("{:016x}", self.hash)
    }

    /// The address that pages use: `/static/{name}?v={hash}`. An answer to it may be kept for
    /// ever (`Cache-Control: public, max-age=31536000, immutable`) when `v` is this hash.
    pub fn href(&self) -> String {
        format!("/static/{}?v={:016x}", self.name, self.hash)
    }
}

/// Every static file.
pub static ASSETS: [Asset; 3] = [
    Asset::new("style.css", "text/css; charset=utf-8", include_str!("../static/style.css")),
    Asset::new("live.js", "text/javascript; charset=utf-8", include_str!("../static/live.js")),
    Asset::new("icon.svg", "image/svg+xml", include_str!("../static/icon.svg")),
];

/// The static file of that name.
pub fn asset(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

pub(crate) fn href(name: &str) -> String {
    asset(name).map_or_else(|| format!("/static/{name}"), Asset::href)
}

/// FNV-1a. It tells versions of our own files apart; nothing rests on it being hard to forge.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_by_name_and_have_an_address_each() {
        let style = asset("style.css").unwrap();
        assert!(style.content_type.starts_with("text/css"));
        assert_eq!(style.href(), format!("/static/style.css?v={}", style.hash()));
        assert!(asset("../Cargo.toml").is_none());
        // The published test vector.
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn files_are_small_and_ask_nobody_else() {
        let limits = [("style.css", 20 * 1024), ("live.js", 15 * 1024), ("icon.svg", 1024)];
        for (name, limit) in limits {
            let body = asset(name).unwrap().body;
            assert!(body.len() <= limit, "{name}: {} bytes", body.len());
            let others = body.replace("http://www.w3.org/2000/svg", "");
            assert!(!others.contains("://") && !others.contains("@import"), "{name}");
        }
    }
}
