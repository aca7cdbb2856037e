"""What av-td3 doctor looks at."""
