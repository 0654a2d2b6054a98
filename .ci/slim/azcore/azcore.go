// Package azcore stands for the client of Azure in the build of the demo.
package azcore

import "github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

// What upstream's remote write uses.
type (
	ClientOptions   = policy.ClientOptions
	AccessToken     = policy.AccessToken
	TokenCredential = policy.TokenCredential
)
