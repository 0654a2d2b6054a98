package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
)

// selfSigned is an authority, and a certificate that it has issued to a client.
func selfSigned(t *testing.T, client string, expires time.Duration) (authority, issued *x509.Certificate, key *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	authority = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	issued = &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: client}, DNSNames: []string{client + ".example"}, NotAfter: time.Now().Add(expires)}
	for _, cert := range []*x509.Certificate{authority, issued} {
		der, err := x509.CreateCertificate(rand.Reader, cert, authority, &key.PublicKey, key)
		require.NoError(t, err)
		parsed, err := x509.ParseCertificate(der)
		require.NoError(t, err)
		*cert = *parsed
	}
	return authority, issued, key
}

// TestChecker_Certificates: what a connection showed when it was made counts if it was
// verified, and if that holds by the file of now.
func TestChecker_Certificates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "web.yml")
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	authority, issued, key := selfSigned(t, "operator", time.Hour)
	other, foreign, _ := selfSigned(t, "operator", time.Hour)
	authorityThen, issuedThen, _ := selfSigned(t, "operator", -time.Second)
	raw, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authority.Raw}))
	ca += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: authorityThen.Raw}))
	write("ca.pem", ca)
	write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw})))

	none := &tls.ConnectionState{}
	good := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{issued}, VerifiedChains: [][]*x509.Certificate{{issued, authority}}}
	unverified := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{issued}}
	// What the system trusts has verified it, while the file named no authority.
	bySystem := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{foreign}, VerifiedChains: [][]*x509.Certificate{{foreign, other}}}
	// It has expired since then.
	expired := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{issuedThen}, VerifiedChains: [][]*x509.Certificate{{issuedThen, authorityThen}}}
	const refused = "refused"
	ask := func(c *Checker, conn *tls.ConnectionState) string {
		who := refused
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.TLS = conn
		c.Check(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			who = strings.Join(Of(r.Context()).Certificates, " ")
		})).ServeHTTP(httptest.NewRecorder(), req)
		return who
	}
	const base = "cert_file: ca.pem, key_file: key.pem"
	file := func(more string) string { return "tls_server_config: {" + base + more + "}" }
	for _, how := range []string{"RequireAndVerifyClientCert", "VerifyClientCertIfGiven"} {
		full := file(", client_auth_type: " + how + ", client_ca_file: ca.pem, client_allowed_sans: [operator.example]")
		write("web.yml", full)
		c, err := NewChecker(path, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		nobody := "" // let in, as nobody
		if how == "RequireAndVerifyClientCert" {
			nobody = refused
		}
		require.Equal(t, "operator.example operator", ask(c, good))
		for _, conn := range []*tls.ConnectionState{nil, none, unverified, bySystem, expired} {
			require.Equal(t, nobody, ask(c, conn))
		}
		for _, less := range []string{"", "{}", file(""), file(", client_auth_type: " + how), file(", client_auth_type: RequireAnyClientCert, client_ca_file: ca.pem"), file(", client_auth_type: " + how + ", client_ca_file: ca.pem")} {
			write("web.yml", less)
			for _, conn := range []*tls.ConnectionState{nil, none, unverified, bySystem, good} {
				require.Equal(t, nobody, ask(c, conn), less)
			}
			_, err := c.Load()
			require.Error(t, err, less)
		}
		write("web.yml", "tls_server_config: {")
		require.Equal(t, refused, ask(c, good))
		write("web.yml", full)
		write("ca.pem", "")
		require.Equal(t, nobody, ask(c, good))
		write("ca.pem", ca)
		require.Equal(t, "operator.example operator", ask(c, good))
		write("web.yml", strings.Replace(full, "operator.example", "another.example", 1))
		require.Equal(t, nobody, ask(c, good))
	}
}

// Without a web configuration file there is nothing to check, and nobody is somebody.
func TestChecker_NoFile(t *testing.T) {
	c, err := NewChecker("", slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.SetBasicAuth("alice", "x")
	asked := false
	c.Check(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked = true
		require.Zero(t, Of(r.Context()))
	})).ServeHTTP(httptest.NewRecorder(), req)
	require.True(t, asked)
}

func TestWebConfig_Passwords(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("a"), bcrypt.MinCost)
	require.NoError(t, err)
	c, err := parse("web.yml", fmt.Appendf(nil, "basic_auth_users: {alice: '%s', bob: '%s', carol: broken}", hash, hash))
	require.NoError(t, err)
	for range 2 { // what was found is remembered
		require.True(t, c.right("alice", "a"))
		require.False(t, c.right("alice", "b"))
		require.False(t, c.right("carol", "broken"))
		require.False(t, c.right("nobody", "a"))
		require.False(t, c.right("", ""))
	}
	require.Len(t, c.known, 1)
}
