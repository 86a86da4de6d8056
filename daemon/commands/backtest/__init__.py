"""dwcp-learner backtest: a recording replayed under several policies of training, side by side."""
