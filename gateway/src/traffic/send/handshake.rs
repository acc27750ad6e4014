//! What a failed TLS connection means, in one sentence for the operator: whose certificate is
//! wrong, in what, and which setting mends it. In comes the error, out goes the sentence. Pure.
//!
//! With TLS 1.3 the server judges our certificate after the handshake is over for us (RFC 8446,
//! 4.4.2 and 6.2): its alert then arrives at the first read, while CONNACK is awaited. Errors of
//! that read are to be asked here, too.

use std::io;

use rustls::{AlertDescription, CertificateError};

use super::TlsSettings;

/// The sentence for an error of a TLS connection to `host`; `None` when it is not TLS that failed.
#[must_use]
pub fn explain(error: &io::Error, host: &str, settings: &TlsSettings) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(explain_tls(inner, host, settings))
}

/// The sentence for a TLS error itself.
#[must_use]
pub fn explain_tls(error: &rustls::Error, host: &str, settings: &TlsSettings) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => server_certificate(fault, host, settings),
        rustls::Error::AlertReceived(alert) => refusal(*alert, settings),
        rustls::Error::InvalidMessage(_) => {
            format!("what answers at {host} does not speak TLS: is this the port for mqtts://?")
        }
        rustls::Error::NoApplicationProtocol => no_alpn(settings),
        rustls::Error::PeerIncompatible(why) => format!(
            "the server shares no version or cipher of TLS with the gateway, which speaks 1.2 and 1.3 ({why:?})"
        ),
        other => format!("TLS failed: {other}"),
    }
}

fn server_certificate(fault: &CertificateError, host: &str, settings: &TlsSettings) -> String {
    use CertificateError as Fault;
    match fault {
        Fault::UnknownIssuer => format!(
            "the server's certificate is signed by an authority that is not trusted: {}",
            match &settings.ca {
                Some(path) => format!("put that authority's certificate into {} (`ca`)", path.display()),
                None => "set `ca` to a file with that authority's certificate (only the system's are trusted now)".to_owned(),
            }
        ),
        Fault::Expired | Fault::ExpiredContext { .. } => {
            "the server's certificate has expired: renew it at the server (or is this box's clock wrong?)".to_owned()
        }
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is this box's clock wrong?".to_owned()
        }
        Fault::NotValidForName => format!(
            "the server's certificate is not for the name {host}: use the name it was made for in `url`"
        ),
        Fault::NotValidForNameContext { presented, .. } => format!(
            "the server's certificate is not for the name {host} but for {}: use that name in `url`",
            named(presented)
        ),
        Fault::Revoked => "the server's certificate has been revoked".to_owned(),
        other => format!("the server's certificate cannot be accepted: {other}"),
    }
}

/// A certificate may carry any number of names of any length: three say enough.
fn named(presented: &[String]) -> String {
    let some: Vec<String> = presented
        .iter()
        .take(3)
        .map(|name| super::reason::shown(name))
        .collect();
    match some.is_empty() {
        true => "none at all".to_owned(),
        false => some.join(", "),
    }
}

fn refusal(alert: AlertDescription, settings: &TlsSettings) -> String {
    use AlertDescription as Alert;
    let Some(cert) = settings.cert.as_deref().map(std::path::Path::display) else {
        return refusal_without_certificate(alert, settings);
    };
    match alert {
        Alert::CertificateRequired => format!(
            "the server demands a client certificate and takes none of those in {cert} (`cert`): is it by an authority that the server names?"
        ),
        Alert::UnknownCA => format!(
            "the server rejects our client certificate {cert} (`cert`): it does not know the authority that signed it"
        ),
        Alert::CertificateExpired => format!(
            "the server rejects our client certificate {cert} (`cert`): it has expired, renew it"
        ),
        Alert::CertificateRevoked => {
            format!(
                "the server rejects our client certificate {cert} (`cert`): it has been revoked"
            )
        }
        Alert::BadCertificate
        | Alert::CertificateUnknown
        | Alert::UnsupportedCertificate
        | Alert::DecryptError
        | Alert::AccessDenied => format!(
            "the server rejects our client certificate {cert} (`cert`): {}",
            alert_words(alert)
        ),
        other => other_refusal(other, settings),
    }
}

fn refusal_without_certificate(alert: AlertDescription, settings: &TlsSettings) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::CertificateRequired | Alert::NoCertificate | Alert::BadCertificate => {
            "the server demands a client certificate: set `cert` and `key`".to_owned()
        }
        // A server with TLS 1.2 has no alert of its own for a missing certificate.
        Alert::HandshakeFailure => {
            "the server refused the handshake: either it demands a client certificate (set `cert` and `key`) or it shares no cipher of TLS 1.2 or 1.3".to_owned()
        }
        other => other_refusal(other, settings),
    }
}

fn other_refusal(alert: AlertDescription, settings: &TlsSettings) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => no_alpn(settings),
        Alert::ProtocolVersion => {
            "the server speaks neither TLS 1.2 nor 1.3: older versions are not safe".to_owned()
        }
        Alert::UnrecognisedName => "the server does not know the host name in `url`".to_owned(),
        other => format!(
            "the server ended the TLS connection: {}",
            alert_words(other)
        ),
    }
}

fn no_alpn(settings: &TlsSettings) -> String {
    match settings.alpn.is_empty() {
        true => "the server wants an application protocol: set `alpn` to the one it documents"
            .to_owned(),
        false => format!(
            "the server takes none of the application protocols in `alpn` ({})",
            settings.alpn.join(", ")
        ),
    }
}

fn alert_words(alert: AlertDescription) -> String {
    use AlertDescription as Alert;
    match alert {
        Alert::BadCertificate => "it is damaged or its signature is wrong".to_owned(),
        Alert::CertificateUnknown => "it gives no reason".to_owned(),
        Alert::UnsupportedCertificate => {
            "it is of a kind or purpose that the server does not take".to_owned()
        }
        Alert::DecryptError => "the signature made with `key` does not fit it".to_owned(),
        Alert::AccessDenied => "it is sound, but has no right to connect".to_owned(),
        other => format!("alert {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertDescription as Alert;
    use CertificateError as Fault;

    fn with_identity() -> TlsSettings {
        TlsSettings {
            cert: Some("/etc/tidegate/cert.pem".into()),
            ..TlsSettings::default()
        }
    }

    fn all_sentences() -> Vec<String> {
        let ours = with_identity();
        let faults = [
            Fault::UnknownIssuer,
            Fault::Expired,
            Fault::NotValidYet,
            Fault::NotValidForName,
            Fault::Revoked,
            Fault::BadSignature,
        ];
        let alerts = [
            Alert::CertificateRequired,
            Alert::UnknownCA,
            Alert::CertificateExpired,
            Alert::CertificateRevoked,
            Alert::BadCertificate,
            Alert::CertificateUnknown,
            Alert::UnsupportedCertificate,
            Alert::DecryptError,
            Alert::AccessDenied,
            Alert::NoApplicationProtocol,
            Alert::ProtocolVersion,
            Alert::UnrecognisedName,
            Alert::InternalError,
        ];
        let faults = faults.map(rustls::Error::InvalidCertificate);
        let alerts = alerts.map(rustls::Error::AlertReceived);
        faults
            .iter()
            .chain(&alerts)
            .map(|error| explain_tls(error, "cloud.example", &ours))
            .collect()
    }

    #[test]
    fn does_each_fault_have_a_sentence_of_its_own() {
        let sentences = all_sentences();
        for (index, sentence) in sentences.iter().enumerate() {
            assert!(!sentence.contains('\n'), "{sentence}");
            let again = sentences.iter().position(|other| other == sentence);
            assert_eq!(again, Some(index), "{sentence}");
        }
    }

    #[test]
    fn does_a_missing_client_certificate_differ_from_a_rejected_one() {
        let error = rustls::Error::AlertReceived(Alert::CertificateRequired);
        let missing = explain_tls(&error, "h", &TlsSettings::default());
        let rejected = explain_tls(&error, "h", &with_identity());
        assert!(missing.contains("set `cert` and `key`"), "{missing}");
        assert!(rejected.contains("/etc/tidegate/cert.pem"), "{rejected}");
    }

    #[test]
    fn are_a_certificates_names_shown_few_and_harmless() {
        let presented = vec!["a\nb".repeat(1_000); 1_000];
        let sentence = explain_tls(
            &rustls::Error::InvalidCertificate(Fault::NotValidForNameContext {
                expected: rustls_pki_types::ServerName::try_from("h").unwrap(),
                presented,
            }),
            "h",
            &TlsSettings::default(),
        );
        assert!(sentence.len() < 2_000 && !sentence.contains('\n'));
    }

    #[test]
    fn is_what_is_not_tls_left_to_others() {
        let error = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(explain(&error, "h", &TlsSettings::default()), None);
    }
}
