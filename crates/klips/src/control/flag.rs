//! The flags of an SA, and who may set which.

pub(crate) use pfkey::flags::*;

/// An SA for packets both ways.
pub(crate) const BOTH: u32 = INBOUND | OUTBOUND;

/// Those an ADD of AH may have.
pub(crate) const ADD_AH: u32 = NOREPLAY | BOTH | PAIRED | TUNNEL | KM1 | KM2 | KM3 | KM4 | AALG1 | AALG2;
/// Those an ADD of anything else may have.
pub(crate) const ADD_ESP: u32 = ADD_AH | NATTED | NATT_LOC | NATT_REM | EALG1 | EALG2;
/// Those an UPDATE of an AH SA that is not larval may have.
pub(crate) const UPDATE_AH: u32 = NOREPLAY | BOTH | PAIRED | KM1 | KM2 | KM3 | KM4;
/// Those an UPDATE of anything else that is not larval may have.
pub(crate) const UPDATE_ESP: u32 = UPDATE_AH | NATTED | NATT_LOC | NATT_REM;

// The values of the reference.
const _: () = assert!(ADD_AH == 0x33c3_c002 && ADD_ESP == 0x3fdb_d002);
const _: () = assert!(UPDATE_AH == 0x03c1_c002 && UPDATE_ESP == 0x03d9_d002);
