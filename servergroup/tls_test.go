package servergroup

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	commoncfg "github.com/prometheus/common/config"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/stretchr/testify/require"

	"github.com/oneprom/oneprom/servergroup/backendtest"
	"github.com/oneprom/oneprom/servergroup/backendtest/fault"
	"github.com/oneprom/oneprom/servergroup/config"
)

// tlsWorld has an authority that oneprom trusts, another one, and the files of a client of it.
type tlsWorld struct {
	t                 *testing.T
	trusted, stranger *fault.Authority
	dir               string
	backend           http.Handler
}

func newTLSWorld(t *testing.T) *tlsWorld {
	t.Helper()
	w := &tlsWorld{t: t, dir: t.TempDir(), backend: backendtest.NewHandler(backendtest.Options{Queryable: promqltest.LoadedStorage(t, "load 15s\n foo 1+1x3")})}
	var err error
	w.trusted, err = fault.NewAuthority()
	require.NoError(t, err)
	w.stranger, err = fault.NewAuthority()
	require.NoError(t, err)
	w.file("ca.pem", w.trusted.PEM)
	return w
}

func (w *tlsWorld) file(name string, data []byte) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	require.NoError(w.t, os.WriteFile(path, data, 0o600))
	return path
}

// client is a tls_config with a certificate that an authority has issued.
func (w *tlsWorld) client(a *fault.Authority, expires time.Duration) commoncfg.TLSConfig {
	w.t.Helper()
	cert, key, err := a.Issue("oneprom", expires)
	require.NoError(w.t, err)
	return commoncfg.TLSConfig{CAFile: filepath.Join(w.dir, "ca.pem"), CertFile: w.file("client.pem", cert), KeyFile: w.file("client.key", key)}
}

func (w *tlsWorld) certificate(a *fault.Authority, expires time.Duration) tls.Certificate {
	w.t.Helper()
	cert, key, err := a.Issue("server", expires)
	require.NoError(w.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	require.NoError(w.t, err)
	return pair
}

// serve serves a backend by TLS; nil is a server without.
func (w *tlsWorld) serve(cfg *tls.Config) *httptest.Server {
	w.t.Helper()
	srv := httptest.NewUnstartedServer(w.backend)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	if srv.TLS = cfg; cfg == nil {
		srv.Start()
	} else {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	}
	w.t.Cleanup(srv.Close)
	return srv
}

// asking is a server configuration that lets in only who shows a certificate of the authority.
func asking(a *fault.Authority, own tls.Certificate) *tls.Config {
	clients := x509.NewCertPool()
	clients.AddCert(a.Cert)
	return &tls.Config{Certificates: []tls.Certificate{own}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
}

// tlsGroup is a group whose targets are asked by TLS, but for those with another scheme.
func tlsGroup(c commoncfg.TLSConfig, servers ...*httptest.Server) config.Group {
	cfg := groupOf("a", servers...)
	cfg.Scheme, cfg.HTTPClientConfig.TLSConfig = "https", c
	return cfg
}

// TestTLS_RefusalsSayWhatToDo: a replica that cannot be asked for want of trust is one that is missing. The message has what is
// wrong, where, and what to do, and its twin answers.
func TestTLS_RefusalsSayWhatToDo(t *testing.T) {
	w := newTLSWorld(t)
	good := w.certificate(w.trusted, time.Hour)
	trust := commoncfg.TLSConfig{CAFile: filepath.Join(w.dir, "ca.pem")}
	f := func(server *tls.Config, client commoncfg.TLSConfig, what, todo string) {
		t.Helper()
		broken := w.serve(server)
		cfg := tlsGroup(client, broken)
		if server != nil && client == (commoncfg.TLSConfig{}) {
			cfg.Scheme = "http"
		}
		s := newTestSet(t, config.PartialWarn, cfg)
		_, _, err := selectText(t, s, "foo", 0, 15_000)
		require.ErrorContains(t, err, "127.0.0.1:")
		require.ErrorContains(t, err, what)
		require.ErrorContains(t, err, todo)
		require.Contains(t, s.Status()[0].Replicas[0].LastError, todo)
		require.Equal(t, "down", s.Status()[0].Replicas[0].Health)
	}
	const setClient = "set `cert_file` and `key_file` of `tls_config`" // the server's own words may be lost
	plain := func() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{good}} }
	f(&tls.Config{Certificates: []tls.Certificate{w.certificate(w.trusted, -time.Minute)}}, trust, "certificate has expired", "renew the certificate of the server")
	f(&tls.Config{Certificates: []tls.Certificate{w.certificate(w.stranger, time.Hour)}}, trust, "unknown authority", "set `ca_file` of `tls_config`")
	f(plain(), commoncfg.TLSConfig{CAFile: trust.CAFile, ServerName: "other.example"}, "server.example, not other.example", "set `server_name` of `tls_config`")
	f(plain(), commoncfg.TLSConfig{}, "400 Bad Request", "the server expects TLS: set `scheme: https`")
	f(nil, trust, "HTTP response to HTTPS client", "set `scheme: http`")
	f(asking(w.trusted, good), trust, "", setClient)
	f(asking(w.trusted, good), w.client(w.stranger, time.Hour), "", setClient)
	f(asking(w.trusted, good), w.client(w.trusted, -time.Minute), "", setClient)
	old := plain()
	old.MaxVersion = tls.VersionTLS12
	f(old, commoncfg.TLSConfig{CAFile: trust.CAFile, MinVersion: tls.VersionTLS13}, "protocol version not supported", "set `min_version` or `max_version` of `tls_config`")
}

// TestTLS_TwinOfARefusedReplicaAnswers, whichever of the two is refused, and however.
func TestTLS_TwinOfARefusedReplicaAnswers(t *testing.T) {
	w := newTLSWorld(t)
	good := w.serve(&tls.Config{Certificates: []tls.Certificate{w.certificate(w.trusted, time.Hour)}})
	expired := w.serve(&tls.Config{Certificates: []tls.Certificate{w.certificate(w.trusted, -time.Minute)}})
	trust := commoncfg.TLSConfig{CAFile: filepath.Join(w.dir, "ca.pem")}
	for _, servers := range [][]*httptest.Server{{good, expired}, {expired, good}} {
		s := newTestSet(t, config.PartialError, tlsGroup(trust, servers...))
		got, ws, err := selectText(t, s, "foo", 0, 15_000)
		require.NoError(t, err)
		require.Equal(t, `{__name__="foo"} 0:1 15:2`+"\n", got)
		require.Len(t, strs(ws), 1)
		require.Contains(t, strs(ws)[0], `PromQL info: server group "a" answered without a replica: `+expired.URL)
		require.Contains(t, strs(ws)[0], "renew the certificate of the server")
	}
}

// TestTLS_FilesChangeWhileConnectionsAreInUse: new authorities and certificates count at once, on both sides, without a reload.
func TestTLS_FilesChangeWhileConnectionsAreInUse(t *testing.T) {
	w := newTLSWorld(t)
	var now atomic.Pointer[tls.Config]
	now.Store(asking(w.trusted, w.certificate(w.trusted, time.Hour)))
	own := now.Load().Clone()
	own.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil }
	srv := w.serve(own)
	s := newTestSet(t, config.PartialError, tlsGroup(w.client(w.trusted, time.Hour), srv))
	ask := func() {
		t.Helper()
		got, ws, err := selectText(t, s, "foo", 0, 15_000)
		require.NoError(t, err)
		require.Empty(t, strs(ws))
		require.Equal(t, `{__name__="foo"} 0:1 15:2`+"\n", got)
	}
	ask()
	for range 3 {
		next, err := fault.NewAuthority()
		require.NoError(t, err)
		w.file("ca.pem", next.PEM)
		w.client(next, time.Hour)
		now.Store(asking(next, w.certificate(next, time.Hour)))
		srv.CloseClientConnections()
		ask()
	}
}
