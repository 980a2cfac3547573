//! Kinds of keys, and which of them are supported.

use std::fmt;

use super::der::{BIT_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, dotted, elements, expect};

/// The supported kinds, in the words of a message.
pub(super) const TAKEN: &str = "RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519";

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// 1.2.840.10045.2.1
const ELLIPTIC_CURVE: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
/// Kinds that are not supported, but have a name.
const OTHERS: [(&[u8], &str); 4] = [
    (&[0x2b, 0x65, 0x71], "Ed448"),
    (&[0x2b, 0x65, 0x6e], "X25519"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1], "DSA"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10], "RSA that is for PSS alone"),
];
/// Named curves. The first three are supported.
const CURVES: [(&[u8], &str); 5] = [
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], "P-256"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x22], "P-384"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "P-224"),
    (&[0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
];
const CURVES_TAKEN: [&str; 3] = ["P-256", "P-384", "P-521"];

/// The kind of a key, private or public.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind<'a> {
    /// RSA, with the bits of its modulus; 0 if the modulus cannot be read.
    Rsa(usize),
    /// A key on a named curve.
    Curve(&'static str),
    /// Ed25519.
    Ed25519,
    /// Another kind that has a name.
    Named(&'static str),
    /// Any other kind, with the object identifier of its algorithm or of its curve.
    Other(&'a [u8]),
}

impl<'a> KeyKind<'a> {
    /// Reads the content of a `SubjectPublicKeyInfo`.
    pub(super) fn public(info: &'a [u8]) -> Option<Self> {
        let (algorithm, rest) = expect(SEQUENCE, info)?;
        let (bits, _) = expect(BIT_STRING, rest)?;
        // The first byte is the number of unused bits.
        let modulus = || expect(SEQUENCE, bits.get(1..)?).and_then(|(fields, _)| expect(INTEGER, fields));
        Self::of(algorithm, || modulus().map(|(modulus, _)| modulus))
    }

    /// Reads a private key in PKCS#8.
    pub(super) fn pkcs8(der: &'a [u8]) -> Option<Self> {
        let (fields, _) = expect(SEQUENCE, der)?;
        let (_version, rest) = expect(INTEGER, fields)?;
        let (algorithm, rest) = expect(SEQUENCE, rest)?;
        let (key, _) = expect(OCTET_STRING, rest)?;
        Self::of(algorithm, || pkcs1_modulus(key))
    }

    /// Reads an RSA key in PKCS#1.
    pub(super) fn pkcs1(der: &'a [u8]) -> Option<Self> {
        pkcs1_modulus(der).map(|modulus| Self::Rsa(bits(modulus)))
    }

    /// Reads a key on a curve in SEC 1. `None` if it does not name its curve.
    pub(super) fn sec1(der: &'a [u8]) -> Option<Self> {
        let (fields, _) = expect(SEQUENCE, der)?;
        let (_version, rest) = expect(INTEGER, fields)?;
        let (_key, rest) = expect(OCTET_STRING, rest)?;
        let (_, parameters) = elements(rest).find(|(tag, _)| *tag == 0xa0)?;
        Some(curve(parameters))
    }

    fn of(algorithm: &'a [u8], modulus: impl Fn() -> Option<&'a [u8]>) -> Option<Self> {
        let (name, parameters) = expect(OBJECT_IDENTIFIER, algorithm)?;
        let other = || OTHERS.iter().find(|(oid, _)| *oid == name).map(|(_, name)| Self::Named(name));
        Some(match name {
            RSA => Self::Rsa(modulus().map_or(0, bits)),
            ELLIPTIC_CURVE => curve(parameters),
            ED25519 => Self::Ed25519,
            _ => other().unwrap_or(Self::Other(name)),
        })
    }

    /// Whether certificates with such a key, and signatures by it, are accepted.
    pub(super) fn is_taken(self) -> bool {
        match self {
            Self::Rsa(bits) => (2048..=8192).contains(&bits),
            Self::Curve(name) => CURVES_TAKEN.contains(&name),
            Self::Ed25519 => true,
            Self::Named(_) | Self::Other(_) => false,
        }
    }
}

impl fmt::Display for KeyKind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(0) => write!(f, "RSA"),
            Self::Rsa(bits) => write!(f, "RSA of {bits} bits"),
            Self::Curve(name) | Self::Named(name) => write!(f, "{name}"),
            Self::Ed25519 => write!(f, "Ed25519"),
            Self::Other([]) => write!(f, "a curve without a name"),
            Self::Other(oid) => write!(f, "{}", dotted(oid)),
        }
    }
}

/// Explicit curve parameters, as opposed to a named curve, are not supported.
fn curve(parameters: &[u8]) -> KeyKind<'_> {
    let oid = expect(OBJECT_IDENTIFIER, parameters).map_or(&[][..], |(oid, _)| oid);
    CURVES.iter().find(|(known, _)| *known == oid).map_or(KeyKind::Other(oid), |(_, name)| KeyKind::Curve(name))
}

fn pkcs1_modulus(der: &[u8]) -> Option<&[u8]> {
    let (fields, _) = expect(SEQUENCE, der)?;
    let (_version, rest) = expect(INTEGER, fields)?;
    expect(INTEGER, rest).map(|(modulus, _)| modulus)
}

fn bits(number: &[u8]) -> usize {
    let number = number.iter().position(|byte| *byte != 0).map_or(&[][..], |first| &number[first..]);
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;

    #[test]
    fn keys_are_told_apart() {
        let kinds = [
            (&rcgen::PKCS_ECDSA_P256_SHA256, "P-256"),
            (&rcgen::PKCS_ECDSA_P384_SHA384, "P-384"),
            (&rcgen::PKCS_ECDSA_P521_SHA512, "P-521"),
            (&rcgen::PKCS_ED25519, "Ed25519"),
        ];
        for (algorithm, name) in kinds {
            let key = KeyPair::generate_for(algorithm).expect("aws-lc-rs makes these");
            let public = key.subject_public_key_info();
            let (info, _) = expect(SEQUENCE, &public).expect("a sequence");
            assert_eq!(KeyKind::public(info).expect("a key").to_string(), name);
            assert_eq!(KeyKind::pkcs8(&key.serialize_der()).expect("a key").to_string(), name);
            assert!(KeyKind::pkcs8(&key.serialize_der()).is_some_and(KeyKind::is_taken));
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let der = KeyPair::generate().expect("aws-lc-rs makes P-256 keys").serialize_der();
        for end in 0..der.len() {
            let _ = (KeyKind::pkcs8(&der[..end]), KeyKind::pkcs1(&der[..end]), KeyKind::sec1(&der[..end]));
        }
    }
}
