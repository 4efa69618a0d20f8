//! Encryption of values at rest. Only the database file has them encrypted; memory, reads and watches have plain text.
//!
//! An encrypted value is stored in an envelope of these parts, with their sizes in bytes:
//!
//! ```text
//! 1 version | 8 key id | 16 salt | 12 nonce | ciphertext | 16 tag
//! ```
//!
//! The cipher is AES-256-GCM, with a key that HKDF-SHA256 derives from a key of the key file and the salt, so that even
//! after very many writes a repetition of key and nonce is unlikely. The key and revisions of the record are authenticated
//! as associated data: decryption fails for a value that was moved to another key or that replaces a later one.

mod key_file;

use std::path::PathBuf;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use key_file::{Id, Key};
pub(crate) use key_file::{KeyRing, missing_key_file, shown};

/// Configuration of encryption at rest: which values are encrypted, and the key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Prefixes of the keys whose values are encrypted.
    pub prefixes: Vec<String>,
    /// The key file: one key per line, 32 bytes in base64. The first one encrypts; all can decrypt. Opening the store
    /// rewrites the database if values are in plain text or encrypted with another key than the first one.
    pub keys: PathBuf,
    /// Whether to create the key file if it does not exist. It is not created while the database has encrypted values.
    pub create: bool,
}

const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const HEAD: usize = 1 + size_of::<Id>() + SALT_LEN + NONCE_LEN;

/// The reason why an envelope cannot be decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The key ring does not have the key with this id.
    UnknownKey(Id),
    /// The envelope or its associated data were changed.
    Forged,
}

/// Encrypts and decrypts the values of keys with the configured prefixes.
pub(crate) struct Sealer {
    prefixes: Vec<String>,
    ring: KeyRing,
    random: SystemRandom,
}

impl Sealer {
    pub(crate) fn new(prefixes: Vec<String>, ring: KeyRing) -> Sealer {
        Sealer { prefixes, ring, random: SystemRandom::new() }
    }

    /// Whether the value of this key must be encrypted.
    pub(crate) fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether the envelope was encrypted with the key that is the first one now.
    pub(crate) fn is_current(&self, envelope: &[u8]) -> bool {
        id_of(envelope) == Some(self.ring.first().id())
    }

    /// Encrypts `value` and returns the envelope. `bound` is the associated data, which [`Sealer::open`] needs as well.
    pub(crate) fn seal(&self, bound: &[u8], value: &[u8]) -> std::io::Result<Vec<u8>> {
        let failed = |_| std::io::Error::other("the system gives no random bytes");
        let key = self.ring.first();
        let mut envelope = Vec::with_capacity(HEAD + value.len() + MAX_TAG_LEN);
        envelope.push(VERSION);
        envelope.extend_from_slice(&key.id());
        let mut random = [0; SALT_LEN + NONCE_LEN];
        self.random.fill(&mut random).map_err(failed)?;
        envelope.extend_from_slice(&random);
        let (salt, nonce) = random.split_at(SALT_LEN);
        envelope.extend_from_slice(value);
        let cipher = cipher(key, salt).map_err(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(failed)?;
        let tag = cipher.seal_in_place_separate_tag(nonce, Aad::from(bound), &mut envelope[HEAD..]);
        envelope.extend_from_slice(tag.map_err(failed)?.as_ref());
        Ok(envelope)
    }

    /// Decrypts an envelope that was encrypted with the same `bound`.
    pub(crate) fn open(&self, bound: &[u8], envelope: &[u8]) -> Result<Vec<u8>, Closed> {
        let id = id_of(envelope).ok_or(Closed::Forged)?;
        let key = self.ring.get(id).ok_or(Closed::UnknownKey(id))?;
        let (head, sealed) = envelope.split_at_checked(HEAD).ok_or(Closed::Forged)?;
        let (salt, nonce) = head[HEAD - SALT_LEN - NONCE_LEN..].split_at(SALT_LEN);
        let forged = |_| Closed::Forged;
        let cipher = cipher(key, salt).map_err(forged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(forged)?;
        let mut value = sealed.to_vec();
        let length = cipher.open_in_place(nonce, Aad::from(bound), &mut value).map_err(forged)?.len();
        value.truncate(length);
        Ok(value)
    }
}

/// The id of the key in an envelope's header; `None` if the header is not valid.
pub(crate) fn id_of(envelope: &[u8]) -> Option<Id> {
    let (version, rest) = envelope.split_first()?;
    if *version != VERSION { None } else { rest.first_chunk().copied() }
}

fn cipher(key: &Key, salt: &[u8]) -> Result<LessSafeKey, ring::error::Unspecified> {
    let derived = Salt::new(HKDF_SHA256, salt).extract(key.secret());
    let derived = derived.expand(&[b"yado sealed value 1"], &AES_256_GCM)?;
    Ok(LessSafeKey::new(UnboundKey::from(derived)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(keys: &[[u8; 32]]) -> Sealer {
        Sealer::new(vec!["/secret/".into()], KeyRing::of(keys))
    }

    /// An envelope of "value" under key 1, bound to "here", after a change: what opening it says.
    fn check(
        change: impl FnOnce(&mut Vec<u8>),
        keys: &[[u8; 32]],
        bound: &str,
        expect: Result<&str, Closed>,
    ) {
        let mut envelope = sealer(&[[1; 32]]).seal(b"here", b"value").unwrap();
        change(&mut envelope);
        let opened = sealer(keys).open(bound.as_bytes(), &envelope);
        assert_eq!(opened, expect.map(|text| text.as_bytes().to_vec()));
    }

    #[test]
    fn an_envelope_opens_as_it_was_sealed_or_not_at_all() {
        let id = KeyRing::of(&[[1; 32]]).first().id();
        check(|_| (), &[[1; 32]], "here", Ok("value"));
        check(|_| (), &[[2; 32], [1; 32]], "here", Ok("value"));
        check(|_| (), &[[2; 32]], "here", Err(Closed::UnknownKey(id)));
        check(|_| (), &[[1; 32]], "there", Err(Closed::Forged));
        check(|envelope| envelope.clear(), &[[1; 32]], "here", Err(Closed::Forged));
        let length = sealer(&[[1; 32]]).seal(b"here", b"value").unwrap().len();
        for byte in (0..length).filter(|byte| !(1..9).contains(byte)) {
            check(|envelope| envelope[byte] ^= 1, &[[1; 32]], "here", Err(Closed::Forged));
            check(|envelope| envelope.truncate(byte.max(9)), &[[1; 32]], "here", Err(Closed::Forged));
        }
    }

    #[test]
    fn no_envelope_is_like_another_or_shows_its_value() {
        let sealer = sealer(&[[1; 32]]);
        let [a, b] = [(); 2].map(|()| sealer.seal(b"here", b"a value that is easily found").unwrap());
        assert_eq!(a[..9], b[..9]);
        assert_ne!(a[9..], b[9..]);
        assert!(!a.windows(7).any(|bytes| bytes == b" value "));
        assert!(sealer.is_current(&a) && sealer.covers("/secret/a") && !sealer.covers("/secrets"));
    }
}
