// SPDX-License-Identifier: Apache-2.0

// Command cri is a client of the Kubernetes container runtime interface, for
// tests: it sends one request, read as JSON from standard input, and prints the
// answer as JSON.
//
//	echo '{"config": …}' | cri /run/containerd/containerd.sock RuntimeService/RunPodSandbox
//
// It is a module of its own, so that no command of Palisade depends on gRPC.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	_ "k8s.io/cri-api/pkg/apis/runtime/v1" // the services' descriptors
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET SERVICE/METHOD <REQUEST")
		os.Exit(2)
	}
	if err := call(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func call(socket, name string) error {
	service, method, _ := strings.Cut(name, "/")
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName("runtime.v1." + service))
	if err != nil {
		return err
	}
	s, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return fmt.Errorf("%s is no service", service)
	}
	m := s.Methods().ByName(protoreflect.Name(method))
	if m == nil {
		return fmt.Errorf("%s has no %s", service, method)
	}
	request, err := message(m.Input())
	if err != nil {
		return err
	}
	answer, err := message(m.Output())
	if err != nil {
		return err
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(in, request); err != nil {
		return fmt.Errorf("request: %w", err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := conn.Invoke(ctx, "/"+string(s.FullName())+"/"+method, request, answer); err != nil {
		return err
	}
	out, err := protojson.Marshal(answer)
	if err != nil {
		return err
	}
	_, err = fmt.Printf("%s\n", out)
	return err
}

func message(d protoreflect.MessageDescriptor) (proto.Message, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		return nil, err
	}
	return t.New().Interface(), nil
}
