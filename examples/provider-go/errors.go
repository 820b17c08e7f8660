package main

import (
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// domain says whose kinds an ErrorInfo names.
const domain = "podbridge.io"

// kind is what a caller does about an error, and the gRPC code that goes with it. Several kinds
// share a code in the contract; ErrorInfo.reason tells them apart.
type kind struct {
	name string
	code codes.Code
}

var (
	invalid       = kind{"Invalid", codes.InvalidArgument}
	unsupported   = kind{"Unsupported", codes.FailedPrecondition}
	outOfCapacity = kind{"OutOfCapacity", codes.ResourceExhausted}
	notFound      = kind{"NotFound", codes.NotFound}
	unavailable   = kind{"Unavailable", codes.Unavailable}
)

// violation is one thing that is wrong with an input: the field's path in the API's own spelling,
// and what was found or is allowed. Never a secret value.
type violation struct{ field, message string }

// fail makes an error of the contract. Without a message the violations are the message.
func fail(what kind, message string, violations ...violation) error {
	bad := &errdetails.BadRequest{}
	var words []string
	for _, one := range violations {
		words = append(words, one.field+": "+one.message)
		bad.FieldViolations = append(bad.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: one.field, Description: one.message,
		})
	}
	if message == "" {
		message = strings.Join(words, "; ")
	}
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: what.name, Domain: domain}}
	if len(violations) > 0 {
		details = append(details, bad)
	}
	made, err := status.New(what.code, message).WithDetails(details...)
	if err != nil {
		return status.Error(what.code, message)
	}
	return made.Err()
}
