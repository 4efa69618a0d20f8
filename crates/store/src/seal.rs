//! Values that lie encrypted on the disk. In memory, for readers and for watches all is plain.
//!
//! An envelope, in bytes:
//!
//! ```text
//! 1 version | 8 key id | 16 salt | 12 nonce | ciphertext | 16 tag
//! ```
//!
//! AES-256-GCM under a key that HKDF-SHA256 derives from the ring's key and the salt, so that no number of writes makes
//! a pair of key and nonce likely to come twice. What is not encrypted of the record, its key and its revisions, is
//! bound to it: a value that is moved to another key, or put back in the place of a later one, does not open.

mod key_file;

use std::path::PathBuf;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, Salt};
use ring::rand::{SecureRandom, SystemRandom};

use key_file::{Id, Key};
pub(crate) use key_file::{KeyRing, missing_key_file, shown};

/// Which values are encrypted on the disk, and where their keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The values of keys that begin with one of these.
    pub prefixes: Vec<String>,
    /// The file of keys: lines of 32 bytes in base64. The first seals, all of them open. At each start everything that
    /// is plain or under another key is sealed with the first, and of what it was before, nothing is left in the file.
    pub keys: PathBuf,
    /// Whether the file is made where it is missing. It never is while something is sealed already.
    pub create: bool,
}

const VERSION: u8 = 1;
const SALT_LEN: usize = 16;
const HEAD: usize = 1 + size_of::<Id>() + SALT_LEN + NONCE_LEN;

/// Why an envelope does not open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// The ring does not have its key.
    UnknownKey(Id),
    /// It is not what was sealed, or not where it was sealed.
    Forged,
}

/// Seals and opens the values of keys with certain prefixes.
pub(crate) struct Sealer {
    prefixes: Vec<String>,
    ring: KeyRing,
    random: SystemRandom,
}

impl Sealer {
    pub(crate) fn new(prefixes: Vec<String>, ring: KeyRing) -> Sealer {
        Sealer { prefixes, ring, random: SystemRandom::new() }
    }

    /// Whether the value of this key is sealed.
    pub(crate) fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix))
    }

    /// Whether the envelope is as one made now would be: under the first key.
    pub(crate) fn is_current(&self, envelope: &[u8]) -> bool {
        id_of(envelope) == Some(self.ring.first().id())
    }

    /// An envelope of `value`. `bound` is what opening it takes besides the key.
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

    /// The value in an envelope that was sealed with the same `bound`.
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

/// The id of the key that an envelope says it is under.
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
