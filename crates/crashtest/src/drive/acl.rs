//! Access control lists in the form of the system calls.

use super::Random;

/// Name of the list that governs a file.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the list that a directory hands down.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// Version of the form.
const VERSION: u32 = 2;
/// The identity of entries that have none.
const NOBODY: u32 = u32::MAX;

/// A valid list, or one that says no more than a mode, or now and then one that is damaged.
pub(super) fn random(random: &mut Random) -> Vec<u8> {
    let mut perm = || (random.below(8)).to_le_bytes()[0].into();
    let (owner, group, other, mask): (u16, u16, u16, u16) = (perm(), perm(), perm(), perm());
    let (user_perm, group_perm): (u16, u16) = (perm(), perm());
    let mut entries = vec![(USER_OBJ, owner, NOBODY)];
    let named = random.below(4);
    if named & 1 != 0 {
        entries.push((USER, user_perm, *random.pick(&[1, 1000, 70_000])));
    }
    entries.push((GROUP_OBJ, group, NOBODY));
    if named & 2 != 0 {
        entries.push((GROUP, group_perm, *random.pick(&[1, 1000, 70_000])));
    }
    if named != 0 {
        entries.push((MASK, mask, NOBODY));
    }
    entries.push((OTHER, other, NOBODY));
    if random.one_in(20) {
        entries.swap(0, 1);
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

/// What a valid list says for owner, group and others, as the mode shows it.
pub(super) fn mode_bits(value: &[u8]) -> [u16; 3] {
    let mut bits = [0; 3];
    let mut mask = None;
    for entry in value.get(4..).unwrap_or_default().chunks_exact(8) {
        let perm = u16::from_le_bytes([entry[2], entry[3]]);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            USER_OBJ => bits[0] = perm,
            GROUP_OBJ => bits[1] = perm,
            OTHER => bits[2] = perm,
            MASK => mask = Some(perm),
            _ => {}
        }
    }
    bits[1] = mask.unwrap_or(bits[1]);
    bits
}
