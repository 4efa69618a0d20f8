//! A directory in, an image out.
