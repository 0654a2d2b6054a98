package config

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	lru "github.com/hashicorp/golang-lru/v2"
	commoncfg "github.com/prometheus/common/config"
)

// Digest returns a digest of all in the configuration that decides which samples the group has and what its
// answers are: not of how its targets are found, nor of limits. It is the same in another process. Secrets
// are part of it, as another tenant's may bring other samples; a shared cache shows no more of the digest than a
// hash, and those secrets that people think up are stretched before.
func (c *Group) Digest() string {
	type auth struct{ Type, User, Secret string }
	var as []auth
	h := &c.HTTPClientConfig
	if b := h.BasicAuth; b != nil {
		as = append(as, auth{"basic", b.Username + "\xff" + b.UsernameFile, stretched(string(b.Password)) + "\xff" + b.PasswordFile})
	}
	if a := h.Authorization; a != nil {
		as = append(as, auth{a.Type, "", string(a.Credentials) + "\xff" + a.CredentialsFile})
	}
	if o := h.OAuth2; o != nil {
		as = append(as, auth{"oauth2", o.ClientID + "\xff" + o.TokenURL, stretched(string(o.ClientSecret)) + "\xff" + o.ClientSecretFile})
	}
	headers := map[string][]string{}
	for name, value := range c.Headers {
		headers[name] = []string{string(value)}
	}
	if h.HTTPHeaders != nil {
		for name, one := range h.HTTPHeaders.Headers {
			headers[name] = append(append(append(headers[name], one.Values...), plain(one.Secrets)...), one.Files...)
		}
	}
	params := map[string][]string{}
	for name, values := range c.QueryParams {
		params[name] = plain(values)
	}
	portion := ""
	if c.Portion != nil {
		portion = fmt.Sprint(c.Portion.Only, c.Portion.Held, c.Portion.Rest, c.Portion.Denied)
	}
	raw, err := json.Marshal([]any{
		c.Name, c.Kind, c.Labels, c.IntrinsicLabels, c.ReplicaLabels, c.GroupBy, c.TimeRange, c.Holds, c.CopiesOf, portion,
		c.PathPrefix, headers, params, as, c.ForwardHeaders, c.RemoteRead, c.RemoteReadPath, c.Replicas, c.Pushdown,
	})
	if err != nil {
		return "" // what is made of strings can be written
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// plain returns the values of secrets.
func plain(secrets []commoncfg.Secret) (out []string) {
	for _, s := range secrets {
		out = append(out, string(s))
	}
	return out
}

// rounds is how many hashes one guess of a password takes: some 0.1 s of a processor.
const rounds = 600_000

// alreadyStretched keeps what stretched returns: groups share passwords, and reloads have the same again.
var alreadyStretched, _ = lru.New[string, string](1000) // an error is for sizes below 1

// stretched returns what tells a password from others, and takes long to guess it by (RFC 8018, PBKDF2).
func stretched(password string) string {
	if password == "" {
		return ""
	}
	if known, ok := alreadyStretched.Get(password); ok {
		return known
	}
	key, err := pbkdf2.Key(sha256.New, password, []byte("a digest of a server group"), rounds, sha256.Size)
	if err != nil {
		return "" // salts and hashes that FIPS 140 does not like are errors, and these are not
	}
	out := hex.EncodeToString(key)
	alreadyStretched.Add(password, out)
	return out
}
