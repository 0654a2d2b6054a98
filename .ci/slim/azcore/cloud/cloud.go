// Package cloud stands for that of the client of Azure.
package cloud

// Configuration is that of a cloud.
type Configuration struct{}

// The clouds.
var AzureChina, AzureGovernment, AzurePublic Configuration
