//! What a certificate says of itself, by RFC 5280: how long it is good, and whose it is.

use std::net::IpAddr;

use wire::Time;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// When a certificate in DER ends being good; `None` where it cannot be read.
pub fn not_after(der: &[u8]) -> Option<Time> {
    let certificate = Certificate::from_der(der).ok()?;
    let since_1970 = certificate.tbs_certificate().validity().not_after.to_unix_duration();
    i64::try_from(since_1970.as_millis()).ok().map(Time::from_millis)
}

/// The names a certificate in DER is for, as texts: DNS names in lower case, IP and e-mail
/// addresses, URIs. Empty where there are none or it cannot be read.
pub fn names(der: &[u8]) -> Vec<String> {
    let Ok(certificate) = Certificate::from_der(der) else { return Vec::new() };
    let Ok(Some((_, SubjectAltName(names)))) =
        certificate.tbs_certificate().get_extension::<SubjectAltName>()
    else {
        return Vec::new();
    };
    names.iter().filter_map(text).collect()
}

fn text(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::Rfc822Name(name) => Some(name.as_str().to_owned()),
        GeneralName::UniformResourceIdentifier(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            if let Ok(four) = <[u8; 4]>::try_from(bytes) {
                return Some(IpAddr::from(four).to_string());
            }
            <[u8; 16]>::try_from(bytes).ok().map(|sixteen| IpAddr::from(sixteen).to_string())
        }
        _ => None,
    }
}
