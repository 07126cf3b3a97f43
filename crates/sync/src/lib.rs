//! Ranked locks over std, spinning or the schedule explorer.
