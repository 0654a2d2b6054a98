package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"

	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
)

func newAuthority(t *testing.T) *fault.Authority {
	t.Helper()
	a, err := fault.NewAuthority()
	require.NoError(t, err)
	return a
}

// signed is a certificate with its key.
func signed(t *testing.T, by *fault.Authority, name string) (cert, key []byte) {
	t.Helper()
	cert, key, err := by.Issue(name, time.Hour)
	require.NoError(t, err)
	return cert, key
}

// secured is a client that trusts an authority, and shows a certificate of another one (nil: none).
func secured(t *testing.T, trusts, by *fault.Authority, name string) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(trusts.Cert)
	config := &tls.Config{RootCAs: roots}
	if by != nil {
		own, err := tls.X509KeyPair(signed(t, by, name))
		require.NoError(t, err)
		config.Certificates = []tls.Certificate{own}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestWebConfig: TLS, passwords, client certificates and headers of the web configuration
// file, and the tenants that they make of clients.
func TestWebConfig(t *testing.T) {
	dir, ca := t.TempDir(), newAuthority(t)
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	cert, key := signed(t, ca, "server")
	file("server.pem", cert)
	file("server.key", key)
	file("ca.pem", ca.PEM)
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	require.NoError(t, err)
	web := file("web.yml", fmt.Appendf(nil, `
tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth_type: VerifyClientCertIfGiven}
http_server_config: {headers: {X-Frame-Options: deny}}
basic_auth_users: {alice: '%s', carol: '%s'}
`, hash, hash))
	s, _ := startedServer(t, `
tenants:
  - {name: a, users: [alice], selector: '{team="a"}'}
  - {name: root, certificates: [operator], admin: true}
`+oneGroup, "--web.config.file="+web)

	ask := func(user, password, certificate string) (int, string, http.Header) {
		by := ca
		if certificate == "" {
			by = nil
		}
		client := secured(t, ca, by, certificate)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr()+"/api/v1/status/config", nil)
		require.NoError(t, err)
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body), resp.Header
	}
	code, body, header := ask("alice", "hunter2", "")
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "administrators only") // she is a tenant
	require.Equal(t, "deny", header.Get("X-Frame-Options"))
	code, _, _ = ask("alice", "wrong", "")
	require.Equal(t, http.StatusUnauthorized, code)
	code, _, _ = ask("", "", "operator")
	require.Equal(t, http.StatusUnauthorized, code)
	code, _, _ = ask("carol", "hunter2", "operator")
	require.Equal(t, http.StatusOK, code)
	code, body, _ = ask("alice", "hunter2", "operator")
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "more than one tenant")
	code, body, _ = ask("carol", "hunter2", "")
	require.Equal(t, http.StatusForbidden, code)
	require.Contains(t, body, "no tenant has this user or certificate")
}

// TestWebConfig_ClientCertificates: who shows none, or one of a strange authority, gets no answer. A tenant is who its certificate
// says, whatever its headers say. New certificates of the server and new authorities count at once.
func TestWebConfig_ClientCertificates(t *testing.T) {
	dir, ca, stranger := t.TempDir(), newAuthority(t), newAuthority(t)
	file := func(name string, data []byte) { writeConfig(t, filepath.Join(dir, name), string(data)) }
	own := func(by *fault.Authority) {
		cert, key := signed(t, by, "server")
		file("server.pem", cert)
		file("server.key", key)
	}
	own(ca)
	file("ca.pem", ca.PEM)
	file("web.yml", []byte("tls_server_config: {cert_file: server.pem, key_file: server.key, client_ca_file: ca.pem, client_auth_type: RequireAndVerifyClientCert}"))
	s, _ := startedServer(t, strings.Replace(oneGroup, "global:", "global:\n  tenant_header: X-Tenant", 1)+`
tenants:
  - {name: a, certificates: [a], header_values: [a], selector: '{team="a"}'}
  - {name: root, certificates: [operator.example], header_values: [root], admin: true}
`, "--web.config.file="+filepath.Join(dir, "web.yml"))
	ask := func(client *http.Client, header string) (status int, err error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Addr()+"/api/v1/status/config", nil)
		require.NoError(t, err)
		if header != "" {
			req.Header.Set("X-Tenant", header)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		require.Equal(t, 2, resp.ProtoMajor)
		return resp.StatusCode, resp.Body.Close()
	}
	check := func(want int, client *http.Client, header string) {
		t.Helper()
		status, err := ask(client, header)
		require.NoError(t, err)
		require.Equal(t, want, status)
	}
	for _, client := range []*http.Client{secured(t, ca, nil, ""), secured(t, ca, stranger, "operator"), secured(t, stranger, ca, "operator")} {
		_, err := ask(client, "root")
		require.Error(t, err)
	}
	operator := secured(t, ca, ca, "operator")
	check(http.StatusOK, operator, "")
	check(http.StatusForbidden, secured(t, ca, ca, "a"), "")      // for administrators only
	check(http.StatusForbidden, secured(t, ca, ca, "a"), "root")  // of two tenants
	check(http.StatusForbidden, secured(t, ca, ca, "nobody"), "") // of none
	check(http.StatusOK, secured(t, ca, ca, "nobody"), "root")    // a proxy

	own(stranger)
	check(http.StatusOK, secured(t, stranger, ca, "operator"), "")
	file("ca.pem", stranger.PEM)
	check(http.StatusOK, secured(t, stranger, stranger, "operator"), "")
	status, err := ask(operator, "") // its connection is open
	require.NoError(t, err)
	require.Equal(t, http.StatusUnauthorized, status)
}

// TestWebConfig_NobodyGetsInWhileItIsRewritten: the listener reads the file at each request, and
// lets everybody in if there are no users. What writes a file anew empties it first.
func TestWebConfig_NobodyGetsInWhileItIsRewritten(t *testing.T) {
	hash := func(password string) string {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		require.NoError(t, err)
		return string(hash)
	}
	good := fmt.Sprintf("basic_auth_users: {alice: '%s', operator: '%s'}\n", hash("a"), hash("o"))
	for name, tenants := range map[string]string{
		"users":   "tenants: [{name: a, users: [alice], selector: '{team=\"a\"}'}, {name: root, users: [operator], admin: true}]\n",
		"headers": "tenants: [{name: root, header_values: [root], admin: true}]\n",
		"nobody":  "",
	} {
		t.Run(name, func(t *testing.T) {
			web := filepath.Join(t.TempDir(), "web.yml")
			writeConfig(t, web, good)
			config := tenants + oneGroup
			if name == "headers" {
				config = strings.Replace(config, "global:", "global:\n  tenant_header: X-Tenant", 1)
			}
			s, _ := startedServer(t, config, "--web.config.file="+web)
			ask := func(user, password string) int {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Addr()+"/api/v1/status/config", nil)
				require.NoError(t, err)
				if user != "" {
					req.SetBasicAuth(user, password)
				}
				if name == "headers" {
					req.Header.Set("X-Tenant", "root")
				}
				client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
				resp, err := client.Do(req)
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
				return resp.StatusCode
			}
			require.Equal(t, http.StatusOK, ask("operator", "o"))
			for _, content := range []string{"", "{}", "# nobody\n", "basic_auth_users:", "basic_auth_users: {}", "basic_auth_users: {alice", "basic_auth_users: {operator: ''}", good[:30]} {
				writeConfig(t, web, content)
				for range 2 { // before a reload, and after it
					for user, password := range map[string]string{"": "", "operator": "x", "alice": "", "nobody": "x"} {
						require.Contains(t, []int{http.StatusUnauthorized, http.StatusInternalServerError}, ask(user, password), "%s with %q: %q", user, password, content)
					}
					require.Error(t, s.Reload(t.Context()), content)
				}
			}
			writeConfig(t, web, fmt.Sprintf("basic_auth_users: {operator: '%s', alice: '%s'}", hash("new"), hash("a"))) // takes effect at once
			require.Equal(t, http.StatusUnauthorized, ask("operator", "o"))
			require.Equal(t, http.StatusOK, ask("operator", "new"))
			require.NoError(t, s.Reload(t.Context()))
			require.Equal(t, http.StatusOK, ask("operator", "new"))
			writeConfig(t, web, "{}")
			require.Equal(t, http.StatusUnauthorized, ask("operator", "new"))
		})
	}
}

// A user counts only where somebody asks for the password, and a name in a certificate where
// somebody verifies it.
func TestTenants_UsersNeedPasswords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oneprom.yml")
	writeConfig(t, file, "tenants: [{name: a, users: [alice], selector: '{team=\"a\"}'}]\n"+oneGroup)
	_, err := New(options(t, "--config.file="+file, "--web.listen-address=127.0.0.1:0"))
	require.ErrorContains(t, err, `nobody checks the password of the user "alice"`)
	writeConfig(t, file, "tenants: [{name: a, certificates: [alice], selector: '{team=\"a\"}'}]\n"+oneGroup)
	_, err = New(options(t, "--config.file="+file, "--web.listen-address=127.0.0.1:0"))
	require.ErrorContains(t, err, "nobody verifies client certificates")
}

// TestSystemdSocket starts itself as systemd would, with a socket that is bound.
func TestSystemdSocket(t *testing.T) {
	const child = "ONEPROM_TEST_SOCKET"
	if file := os.Getenv(child); file != "" {
		s, err := New(options(t, "--config.file="+file, "--web.systemd-socket", "--web.enable-lifecycle"))
		require.NoError(t, err)
		require.NoError(t, s.Run(context.Background()))
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	socket, err := l.(*net.TCPListener).File()
	require.NoError(t, err)
	defer func() { _ = socket.Close() }()
	file := filepath.Join(t.TempDir(), "oneprom.yml")
	writeConfig(t, file, oneGroup)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -test.run '^TestSystemdSocket$'`, os.Args[0])
	cmd.Env = append(os.Environ(), child+"="+file)
	cmd.ExtraFiles = []*os.File{socket}
	require.NoError(t, cmd.Start())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + l.Addr().String() + "/-/healthy") // which the socket holds until it is served
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.NoError(t, resp.Body.Close())
	resp, err = client.Post("http://"+l.Addr().String()+"/-/quit", "", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.NoError(t, cmd.Wait())
}
