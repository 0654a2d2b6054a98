package config

import (
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// TestGroup_Digest is another one for all that changes the samples or the answers, and the same for all else.
func TestGroup_Digest(t *testing.T) {
	of := func(text string) string {
		g := Group{}
		require.NoError(t, yaml.Unmarshal([]byte("name: a\n"+text), &g), text)
		return g.Digest()
	}
	plain := of("")
	for _, same := range []string{"timeout: 3s", "static_configs: [{targets: ['h:1']}]", "max_response_bytes: 1MiB"} {
		require.Equal(t, plain, of(same), same)
	}
	seen := map[string]string{plain: "(nothing)"}
	for _, other := range []string{
		"labels: {region: eu}", "kind: thanos", "time_range: {min_age: 6h}", "remote_read: false", "pushdown: false",
		"headers: {X-Scope-OrgID: one}", "headers: {X-Scope-OrgID: two}", "query_params: {db: [one]}", "path_prefix: /x",
		"basic_auth: {username: one, password: one}", "basic_auth: {username: one, password: two}",
		"basic_auth: {username: two, password: one}", "basic_auth: {username: one, password_file: one}",
		"authorization: {credentials: one}", "authorization: {credentials: two}",
		"oauth2: {client_id: one, client_secret: one, token_url: 'http://h/'}",
		"oauth2: {client_id: one, client_secret: two, token_url: 'http://h/'}",
	} {
		digest := of(other)
		require.NotContains(t, seen, digest, "%s is as %s", other, seen[digest])
		seen[digest] = other
	}
}

// TestGroup_DigestOfPassword takes long for each guess, and is the same everywhere.
func TestGroup_DigestOfPassword(t *testing.T) {
	require.Equal(t, "de61c83f899b0ba21277c039ec918f04bc7099cf2e622392562495ccd8eb22b5", stretched("correct horse"))
	require.Empty(t, stretched(""))
}
