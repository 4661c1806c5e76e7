//! Flags of the group "Security".

use super::{Flag, Group, Kind};

pub(super) const SECURITY: &[Flag] = &[
    Flag::new(Group::Security, "cert-file", Kind::Text, "", "Server certificate for clients.")
        .yaml("client-transport-security.cert-file"),
    Flag::new(Group::Security, "key-file", Kind::Text, "", "Key of the server certificate.")
        .yaml("client-transport-security.key-file"),
    Flag::new(
        Group::Security,
        "client-cert-file",
        Kind::Text,
        "",
        "Certificate when this server connects to itself, instead of cert-file.",
    )
    .yaml("client-transport-security.client-cert-file")
    .no_effect("it is checked, but this server does not dial itself"),
    Flag::new(Group::Security, "client-key-file", Kind::Text, "", "Key of client-cert-file.")
        .yaml("client-transport-security.client-key-file")
        .no_effect("it is checked, but this server does not dial itself"),
    Flag::new(
        Group::Security,
        "client-cert-auth",
        Kind::Bool,
        "false",
        "Only take clients with a certificate of the trusted CA.",
    )
    .yaml("client-transport-security.client-cert-auth"),
    Flag::new(
        Group::Security,
        "client-crl-file",
        Kind::Text,
        "",
        "File with the revoked client certificates.",
    ),
    Flag::new(
        Group::Security,
        "client-cert-allowed-hostname",
        Kind::TextList,
        "",
        "Comma-separated host names, one of which a client certificate must carry.",
    )
    .yaml("client-transport-security.allowed-hostname"),
    Flag::new(Group::Security, "trusted-ca-file", Kind::Text, "", "CA certificates for clients.")
        .yaml("client-transport-security.trusted-ca-file"),
    Flag::new(
        Group::Security,
        "auto-tls",
        Kind::Bool,
        "false",
        "Make a self-signed server certificate for clients.",
    )
    .yaml("client-transport-security.auto-tls"),
    Flag::new(Group::Security, "peer-cert-file", Kind::Text, "", "Certificate for other members.")
        .yaml("peer-transport-security.cert-file"),
    Flag::new(Group::Security, "peer-key-file", Kind::Text, "", "Key of peer-cert-file.")
        .yaml("peer-transport-security.key-file"),
    Flag::new(
        Group::Security,
        "peer-client-cert-file",
        Kind::Text,
        "",
        "Certificate when connecting to other members, instead of peer-cert-file.",
    )
    .yaml("peer-transport-security.client-cert-file")
    .no_effect("it is checked, but no member is dialed yet"),
    Flag::new(
        Group::Security,
        "peer-client-key-file",
        Kind::Text,
        "",
        "Key of peer-client-cert-file.",
    )
    .yaml("peer-transport-security.client-key-file")
    .no_effect("it is checked, but no member is dialed yet"),
    Flag::new(
        Group::Security,
        "peer-client-cert-auth",
        Kind::Bool,
        "false",
        "Only take members with a certificate of the trusted CA.",
    )
    .yaml("peer-transport-security.client-cert-auth"),
    Flag::new(
        Group::Security,
        "peer-trusted-ca-file",
        Kind::Text,
        "",
        "CA certificates for members.",
    )
    .yaml("peer-transport-security.trusted-ca-file"),
    Flag::new(
        Group::Security,
        "peer-auto-tls",
        Kind::Bool,
        "false",
        "Make a self-signed certificate for members.",
    )
    .yaml("peer-transport-security.auto-tls"),
    Flag::new(
        Group::Security,
        "self-signed-cert-validity",
        Kind::Unsigned,
        "1",
        "Years a self-signed certificate is valid.",
    )
    .yaml("self-signed-cert-validity"),
    Flag::new(
        Group::Security,
        "peer-crl-file",
        Kind::Text,
        "",
        "File with the revoked certificates of members.",
    ),
    Flag::new(
        Group::Security,
        "peer-cert-allowed-cn",
        Kind::TextList,
        "",
        "Comma-separated common names, one of which the certificate of a member must carry.",
    )
    .yaml("peer-transport-security.allowed-cn"),
    Flag::new(
        Group::Security,
        "peer-cert-allowed-hostname",
        Kind::TextList,
        "",
        "Comma-separated host names, one of which the certificate of a member must carry.",
    )
    .yaml("peer-transport-security.allowed-hostname"),
    Flag::new(
        Group::Security,
        "cipher-suites",
        Kind::TextList,
        "",
        "Comma-separated TLS cipher suites; empty for all.",
    )
    .yaml("cipher-suites"),
    Flag::new(
        Group::Security,
        "peer-skip-client-san-verification",
        Kind::Bool,
        "false",
        "Do not compare the certificate of a member with its address.",
    )
    .yaml("peer-transport-security.skip-client-san-verification"),
    Flag::new(
        Group::Security,
        "tls-min-version",
        Kind::Text,
        "TLS1.2",
        "Smallest TLS version: TLS1.2 or TLS1.3.",
    )
    .yaml("tls-min-version"),
    Flag::new(
        Group::Security,
        "tls-max-version",
        Kind::Text,
        "",
        "Largest TLS version: TLS1.2 or TLS1.3; empty for the largest there is.",
    )
    .yaml("tls-max-version"),
    Flag::new(
        Group::Security,
        "cors",
        Kind::Origins,
        "*",
        "Comma-separated origins from which browsers may ask, * for any.",
    )
    .yaml("cors"),
    Flag::new(
        Group::Security,
        "host-whitelist",
        Kind::TextSet,
        "*",
        "Comma-separated host names that HTTP requests without TLS may name, * for any.",
    )
    .yaml("host-whitelist"),
];
