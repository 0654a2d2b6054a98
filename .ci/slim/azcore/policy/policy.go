// Package policy stands for that of the client of Azure.
package policy

import (
	"context"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
)

// ClientOptions are those of all clients.
type ClientOptions struct{ Cloud cloud.Configuration }

// AccessToken is a token.
type AccessToken struct {
	Token                string
	ExpiresOn, RefreshOn time.Time
}

// TokenRequestOptions say what a token is for.
type TokenRequestOptions struct{ Scopes []string }

// TokenCredential gets tokens.
type TokenCredential interface {
	GetToken(ctx context.Context, options TokenRequestOptions) (AccessToken, error)
}
