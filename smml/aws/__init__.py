"""The world outside: AWS APIs through boto3, and stand-ins on loopback where no account is at hand."""
