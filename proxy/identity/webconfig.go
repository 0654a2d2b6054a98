package identity

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/crypto/bcrypt"
	"gopkg.in/yaml.v3"
)

// WebConfig is what a web configuration file asks of clients.
type WebConfig struct {
	users  map[string]string // their hashed passwords
	tls    web.TLSConfig
	issued []*x509.Certificate // the authorities of client certificates; none are those of the system

	text, caText []byte // of the file, and of client_ca_file

	mu    sync.Mutex                   // one password is compared at a time, as it takes long by design
	known map[string][sha256.Size]byte // digests of passwords that were right, by user
}

// HasUser reports whether the password of a user is checked.
func (c *WebConfig) HasUser(name string) bool {
	_, ok := c.users[name]
	return ok
}

// VerifiesCertificates reports whether client certificates are verified.
func (c *WebConfig) VerifiesCertificates() bool {
	return c.tls.ClientAuth == "RequireAndVerifyClientCert" || c.tls.ClientAuth == "VerifyClientCertIfGiven"
}

// needsCertificate reports whether each client must show a certificate.
func (c *WebConfig) needsCertificate() bool {
	switch c.tls.ClientAuth {
	case "RequireAndVerifyClientCert", "RequireAnyClientCert", "RequireClientCert":
		return true
	}
	return false
}

// lostIn says what another file asks for less; "" is nothing.
func (c *WebConfig) lostIn(other *WebConfig) string {
	switch {
	case len(c.users) > 0 && len(other.users) == 0:
		return "it has no basic_auth_users any more"
	case c.needsCertificate() && !other.needsCertificate(), c.VerifiesCertificates() && !other.VerifiesCertificates():
		return fmt.Sprintf("client_auth_type is %q instead of %q", other.tls.ClientAuth, c.tls.ClientAuth)
	case len(c.issued) > 0 && len(other.issued) == 0:
		return "it has no certificates of client_ca or client_ca_file any more"
	case len(c.tls.ClientAllowedSans) > 0 && len(other.tls.ClientAllowedSans) == 0:
		return "it has no client_allowed_sans any more"
	}
	return ""
}

// right reports whether a password is that of a user.
func (c *WebConfig) right(user, password string) bool {
	hash, ok := c.users[user]
	if !ok {
		return false
	}
	digest := sha256.Sum256([]byte(password))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[user] == digest {
		return true
	}
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) != nil {
		return false
	}
	c.known[user] = digest
	return true
}

// verified returns the client certificate of a connection that was verified when the
// connection was made, if that holds now, and by this file, too, which asks for no less than the
// one that was loaded: without authorities in the file, all that the system trusts may issue one.
func (c *WebConfig) verified(conn *tls.ConnectionState, loaded *WebConfig) *x509.Certificate {
	if conn == nil || len(conn.VerifiedChains) == 0 || loaded.lostIn(c) != "" {
		return nil
	}
	cert := conn.PeerCertificates[0]
	if c.tls.ClientAllowedSans != nil && c.tls.VerifyPeerCertificate([][]byte{cert.Raw}, nil) != nil {
		return nil
	}
	now := time.Now()
	for _, chain := range conn.VerifiedChains {
		if !slices.ContainsFunc(chain, func(c *x509.Certificate) bool { return now.Before(c.NotBefore) || now.After(c.NotAfter) }) &&
			(len(c.issued) == 0 || slices.ContainsFunc(c.issued, chain[len(chain)-1].Equal)) {
			return cert
		}
	}
	return nil
}

// satisfied reports whether a connection shows the certificate that each must.
func (c *WebConfig) satisfied(conn *tls.ConnectionState, verified bool) bool {
	shown := conn != nil && len(conn.PeerCertificates) > 0
	return verified || !c.needsCertificate() || shown && !c.VerifiesCertificates()
}

func namesIn(cert *x509.Certificate) []string {
	names := slices.Concat(cert.DNSNames, cert.EmailAddresses)
	for _, uri := range cert.URIs {
		names = append(names, uri.String())
	}
	if cert.Subject.CommonName != "" {
		names = append(names, cert.Subject.CommonName)
	}
	return names
}

// load reads a file as the listener does when it starts.
func load(path string) (*WebConfig, error) {
	if err := web.Validate(path); err != nil {
		return nil, fmt.Errorf("--web.config.file: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--web.config.file: %w", err)
	}
	return parse(path, text)
}

func parse(path string, text []byte) (*WebConfig, error) {
	var from web.Config
	if err := yaml.Unmarshal(text, &from); err != nil {
		return nil, errors.New("--web.config.file: cannot be read as YAML") // what is wrong may quote secrets
	}
	from.TLSConfig.SetDirectory(filepath.Dir(path))
	c := &WebConfig{users: map[string]string{}, tls: from.TLSConfig, text: text, known: map[string][sha256.Size]byte{}}
	for name, hash := range from.Users {
		c.users[name] = string(hash)
	}
	authorities := []byte(c.tls.ClientCAsText)
	if c.tls.ClientCAs != "" {
		var err error
		if c.caText, err = os.ReadFile(c.tls.ClientCAs); err != nil {
			return nil, fmt.Errorf("--web.config.file: client_ca_file: %w", err)
		}
		authorities = c.caText
	}
	c.issued = certificatesIn(authorities)
	return c, nil
}

func certificatesIn(text []byte) (found []*x509.Certificate) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, cert)
		}
	}
	return found
}

// file is a web configuration file that may change at any time. It is parsed once for each
// content.
type file struct {
	path string

	mu     sync.Mutex
	parsed *WebConfig // what it was when it was last read; nil: it could not be
	failed string     // why
}

// read returns what the file is now, and whether it was something else before.
func (f *file) read() (now *WebConfig, changed bool, err error) {
	text, err := os.ReadFile(f.path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.parsed != nil && bytes.Equal(f.parsed.text, text) && f.parsed.sameAuthorities() {
		return f.parsed, false, nil
	}
	if err == nil {
		now, err = parse(f.path, text)
	}
	before := f.failed
	f.parsed, f.failed = now, ""
	if err != nil {
		f.failed = err.Error()
	}
	return now, err == nil || f.failed != before, err
}

// sameAuthorities reports whether client_ca_file has not changed.
func (c *WebConfig) sameAuthorities() bool {
	if c.tls.ClientCAs == "" {
		return true
	}
	text, err := os.ReadFile(c.tls.ClientCAs)
	return err == nil && bytes.Equal(text, c.caText)
}
