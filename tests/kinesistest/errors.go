package kinesistest

import "fmt"

// apiError is an answer that is not 200. Its code is the service's exception name, as it stands in the body's __type.
type apiError struct {
	status  int
	code    string
	message string
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

func errorf(code, format string, args ...any) *apiError {
	return &apiError{status: statusOf(code), code: code, message: fmt.Sprintf(format, args...)}
}

// statusOf is the HTTP status that AWS sends with an exception: 400 for all but the two that are its own fault.
func statusOf(code string) int {
	switch code {
	case InternalFailure:
		return 500
	case ServiceUnavailable:
		return 503
	}
	return 400
}

// The exceptions of the Kinesis Data Streams API, and the common ones of AWS that it answers with: codes for Fault.Code.
const (
	AccessDenied                  = "AccessDeniedException"
	DryRunOperation               = "DryRunOperationException"
	ExpiredIterator               = "ExpiredIteratorException"
	ExpiredNextToken              = "ExpiredNextTokenException"
	ExpiredToken                  = "ExpiredTokenException"
	InternalFailure               = "InternalFailure"
	InvalidArgument               = "InvalidArgumentException"
	KMSAccessDenied               = "KMSAccessDeniedException"
	KMSDisabled                   = "KMSDisabledException"
	KMSInvalidState               = "KMSInvalidStateException"
	KMSNotFound                   = "KMSNotFoundException"
	KMSOptInRequired              = "KMSOptInRequired"
	KMSThrottling                 = "KMSThrottlingException"
	LimitExceeded                 = "LimitExceededException"
	ProvisionedThroughputExceeded = "ProvisionedThroughputExceededException"
	ResourceInUse                 = "ResourceInUseException"
	ResourceNotFound              = "ResourceNotFoundException"
	ServiceUnavailable            = "ServiceUnavailable"
	Throttling                    = "ThrottlingException"
	UnknownOperation              = "UnknownOperationException"
	UnrecognizedClient            = "UnrecognizedClientException"
	Validation                    = "ValidationException"
)
