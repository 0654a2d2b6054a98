package transport

import (
	"bytes"
	"crypto/x509"
	"errors"
	"net/http"
	"strings"
)

// tlsAdvice says what to do about a connection that TLS has refused; "" if it did not.
func tlsAdvice(err error) string {
	var (
		invalid   x509.CertificateInvalidError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
	)
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of the server, or set the clock of oneprom's host"
	case errors.As(err, &authority):
		return "set `ca_file` of `tls_config` to the authority that has issued the certificate of the server"
	case errors.As(err, &host):
		return "set `server_name` of `tls_config` to a name that the certificate of the server has"
	case errors.Is(err, http.ErrSchemeMismatch):
		return "set `scheme: http`"
	}
	// What a server refuses is an alert, whose type crypto/tls does not export.
	_, alert, _ := strings.Cut(err.Error(), "remote error: tls: ")
	switch alert {
	case "certificate required":
		return "the server asks for a client certificate: set `cert_file` and `key_file` of `tls_config`"
	case "bad certificate", "unsupported certificate", "revoked certificate", "expired certificate", "unknown certificate", "unknown certificate authority", "access denied":
		return "the server refuses the client certificate, or misses one: set `cert_file` and `key_file` of `tls_config` to one that it accepts and that has not expired"
	case "protocol version not supported":
		return "set `min_version` or `max_version` of `tls_config` to a version that the server speaks"
	case "unrecognized name":
		return "set `server_name` of `tls_config` to a name that the server knows"
	}
	if _, ended := errors.AsType[*endedAfterHandshake](err); ended {
		return "the connection ended after the TLS handshake: if the server asks for client certificates, set `cert_file` and `key_file` of `tls_config` to one that it accepts"
	}
	return ""
}

// endedAfterHandshake is the error of a new connection that ended before an answer. In TLS 1.3 a server
// looks at the client's certificate when the client's handshake is over. What it says then is often
// lost, as the client finds that it cannot write any more.
type endedAfterHandshake struct{ err error }

func (e *endedAfterHandshake) Error() string { return e.err.Error() }
func (e *endedAfterHandshake) Unwrap() error { return e.err }

// plainToTLS are the words of servers, under status 400, for HTTP where they expect TLS: those of Go,
// nginx and Apache. They are not about the query.
var plainToTLS = [][]byte{
	[]byte("sent an HTTP request to an HTTPS server"),
	[]byte("plain HTTP request was sent to HTTPS port"),
	[]byte("speaking plain HTTP to an SSL-enabled server port"),
}

// expectsTLS reports whether the body of an error says that the server expects TLS.
func expectsTLS(body []byte) bool {
	for _, words := range plainToTLS {
		if bytes.Contains(body, words) {
			return true
		}
	}
	return false
}
