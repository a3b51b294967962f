"""The commands of an experiment: prepare data, train, evaluate, compare with nnU-Net, reproduce a paper."""
