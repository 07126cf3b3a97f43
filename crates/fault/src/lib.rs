//! The page-fault handler: fault and mkwrite, the soft MMU and the MMU of a Linux process.
