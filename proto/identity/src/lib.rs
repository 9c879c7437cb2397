//! Who speaks: names in certificates, tokens, and the TLS configurations of both ends.
