package dynamotest

import (
	"fmt"
	"net/http"
)

// Names of the shapes errors travel under; the SDK takes what follows the '#'.
const (
	coralValidate = "com.amazon.coral.validate#"
	coralService  = "com.amazon.coral.service#"
	dynamoShape   = "com.amazonaws.dynamodb.v20120810#"
)

// apiError is an error as DynamoDB answers it.
type apiError struct {
	status  int
	shape   string // with its name space
	message string
	item    item // with ConditionalCheckFailedException and ALL_OLD
}

func (e *apiError) Error() string { return e.shape + ": " + e.message }

func validation(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, coralValidate + "ValidationException", fmt.Sprintf(format, args...), nil}
}

// serialization is what a body gets whose JSON has another shape than the operation's input.
func serialization(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, coralService + "SerializationException", fmt.Sprintf(format, args...), nil}
}

func unknownOperation() *apiError {
	return &apiError{http.StatusBadRequest, coralService + "UnknownOperationException", "An unknown operation was requested.", nil}
}

func tableNotFound() *apiError {
	return &apiError{http.StatusBadRequest, dynamoShape + "ResourceNotFoundException", "Requested resource not found", nil}
}

func tableInUse(format string, args ...any) *apiError {
	return &apiError{http.StatusBadRequest, dynamoShape + "ResourceInUseException", fmt.Sprintf(format, args...), nil}
}

func conditionFailed(old item) *apiError {
	return &apiError{http.StatusBadRequest, dynamoShape + "ConditionalCheckFailedException", "The conditional request failed", old}
}
