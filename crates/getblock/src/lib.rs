//! Block trees and allocators: get_blocks, truncate, block and inode allocation.
